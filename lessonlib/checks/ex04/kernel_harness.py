"""Calls a student's decode kernel: makes the tensors, waits for the answer, takes the time.

It runs in the child, beside `kernels/batches.py` and nothing else of `kernels/`: tensors are drawn there from
a seed, since they are too large to travel. Answers go back as NumPy arrays.
"""

from __future__ import annotations

import functools
import math
import mmap
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from triton.compiler.errors import CompilationError
from triton.runtime.errors import InterpreterError
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction

from kernels.batches import make_batch

READ = ("query", "key_cache", "value_cache", "block_table", "seq_lens")  # arguments in the function's order
CACHES = ("key_cache", "value_cache")
UNWRITTEN = 4096.0  # what `out` holds before a call; exact in every dtype, and no answer is as large
WARM_UP = 3
CALLS = 5  # of one lap
FLUSH = 1 << 30  # bytes written before a lap
GPU_BYTES = 16 << 30  # of the card's memory; the course's kernel beside it and others have theirs
INT32 = 1 << 31  # the number of an element from which on it takes more than 32 bits
MAP_NORESERVE = 0x4000  # Linux's; Python names it from 3.13 on
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
Kernel = Callable[..., object]


@dataclass
class Track:
    """What laps are run on: the function's arguments by name, in its order, and memory to write over."""

    arguments: dict[str, Any]
    flushed: torch.Tensor


def _keep_to_the_budget() -> None:
    """Past it, torch says that memory is out, as it would on a smaller card."""
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, GPU_BYTES / total))


if DEVICE == "cuda":
    _keep_to_the_budget()

_track: list[Track] = []  # at most one: the batches of two cases may not fit on a card together


@dataclass(frozen=True)
class Batch:
    """A batch in numbers, as a task's inputs have them.

    Attributes:
        lengths: tokens of each sequence.
        heads: query heads and K/V heads.
        head_dim, seed: as in `make_batch`.
        dtype: "float32", "float16" or "bfloat16".
        scale: factor of the scores; not `make_batch`'s own.
        first_block: the least id of a block. Above 0, the caches have more than 2**31 numbers.
        shift: is added to every value.
    """

    lengths: Sequence[int]
    heads: Sequence[int]
    head_dim: int
    dtype: str
    scale: float
    seed: int
    first_block: int
    shift: float


@dataclass
class Launches:
    """Launches of Triton kernels: how many there were, and whether they do anything now."""

    count: int = 0
    muted: bool = False


_launches = Launches()


def _counted(run: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run)
    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        _launches.count += 1
        return None if _launches.muted else run(self, *arguments, **options)

    return counted


# Whatever a student's file launches goes through one of these two.
for _kind in (InterpretedFunction, JITFunction):
    _kind.run = _counted(_kind.run)


def attend(decode: Kernel, *batch: Any) -> dict[str, Any]:
    """One call on a small batch; `batch` are the fields of `Batch`.

    Returns:
        out: float64 [sequences, heads, head_dim], UNWRITTEN where nothing was written.
        changed: names of the arguments that were only to be read and are not what they were.
        by_kernel: whether Triton kernels were launched, and the answer is another one without them.

    or {"cannot": why} where this machine has not the memory for the batch.
    """
    described = Batch(*batch)
    try:
        arguments = _arguments(described, draw_on="cpu")
    except (OSError, ValueError, torch.cuda.OutOfMemoryError) as error:
        return {"cannot": str(error)}
    before = {name: bits.clone() for name, bits in _read_only(described, arguments).items()}
    _launches.count = 0
    _call(decode, arguments)
    out, is_launched = arguments["out"].double().cpu(), _launches.count > 0
    after = _read_only(described, arguments)
    changed = [name for name in READ if not torch.equal(after[name], before[name])]
    by_kernel = is_launched and not torch.equal(out, _without_kernels(decode, arguments))
    return {"out": out.numpy(), "changed": changed, "by_kernel": by_kernel}


def _read_only(batch: Batch, arguments: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The bits of what a kernel has only to read; of the caches, the blocks that hold something."""
    held = {name: arguments[name] for name in READ}
    held |= {name: held[name][batch.first_block :] for name in CACHES}
    return {name: _bits(tensor) for name, tensor in held.items()}


def _without_kernels(decode: Kernel, arguments: dict[str, Any]) -> torch.Tensor:
    """What `out` holds after a call in which kernels are not launched."""
    out = torch.full_like(arguments["out"], UNWRITTEN)
    _launches.muted = True
    try:
        decode(*(arguments | {"out": out}).values())
    except Exception:  # it looked at what its kernel should have written
        out.fill_(UNWRITTEN)
    finally:
        _launches.muted = False
    return out.double().cpu()


def warm_up(decode: Kernel, *batch: Any) -> np.ndarray:
    """Lay out a large batch for `lap`, given in the same way, and call the kernel a few times.

    Returns:
        float64 [sequences, head_dim], the answer of another head for each sequence.
    """
    _track.clear()
    arguments = _arguments(Batch(*batch), draw_on=DEVICE)
    _call(decode, arguments, WARM_UP)
    _track.append(Track(arguments, torch.empty(FLUSH, dtype=torch.uint8, device=DEVICE)))
    sequences = torch.arange(len(arguments["out"]), device=DEVICE)
    return arguments["out"][sequences, sequences % arguments["out"].shape[1]].double().cpu().numpy()


def lap(decode: Kernel) -> float:
    """Microseconds of one call, from CALLS calls one after another.

    Memory is written over first: keys and values are in no cache then, and the calls have time to line up, so
    that a slow launch is not taken for a slow kernel.
    """
    (track,) = _track
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    track.flushed.zero_()
    start.record()
    _call(decode, track.arguments, CALLS, then=end.record)
    return start.elapsed_time(end) * 1e3 / CALLS


def _arguments(batch: Batch, draw_on: str) -> dict[str, Any]:
    """What the student's function is called with: name → value, in its order.

    Numbers that are drawn on the CPU are the same everywhere. Raises `OSError`, `ValueError` or torch's
    `OutOfMemoryError` where there is not the memory for it.
    """
    made = make_batch(
        [(1, length) for length in batch.lengths],
        heads=(batch.heads[0], batch.heads[1]),
        head_dim=batch.head_dim,
        dtype=getattr(torch, batch.dtype),
        device=DEVICE,
        seed=batch.seed,
        draw_on=draw_on,
    )
    made["value_cache"] += batch.shift
    if batch.first_block:
        table, blocks = made["block_table"], len(made["key_cache"])
        made["block_table"] = torch.where(table < blocks, table + batch.first_block, table)
        made |= zip(CACHES, _in_large_caches([made[name] for name in CACHES], batch.first_block), strict=True)
    out = torch.full_like(made["query"], UNWRITTEN)
    return {"out": out, **{name: made[name] for name in READ}, "scale": batch.scale}


def _in_large_caches(small: Sequence[torch.Tensor], first_block: int) -> list[torch.Tensor]:
    """Each in a cache of its own, from block `first_block` on, and zeros around it.

        2**31 zeros | zeros, keys | zeros, values

    An address that has lost its upper bits points 2**31 numbers too low, and meets zeros there.
    """
    blocks, *shape = small[0].shape
    numbers = (first_block + blocks) * math.prod(shape)
    flat = _zeros(INT32 + len(small) * numbers, small[0].dtype)
    caches = [flat[INT32 + index * numbers :][:numbers].view(-1, *shape) for index in range(len(small))]
    for cache, held in zip(caches, small, strict=True):
        cache[first_block:] = held
    return caches


def _zeros(numbers: int, dtype: torch.dtype) -> torch.Tensor:
    """Of main memory only the pages that are written or looked at are taken."""
    if DEVICE != "cpu":
        return torch.zeros(numbers, dtype=dtype, device=DEVICE)
    flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    return torch.frombuffer(mmap.mmap(-1, numbers * dtype.itemsize, flags=flags), dtype=dtype)


def _call(
    decode: Kernel, arguments: dict[str, Any], times: int = 1, then: Callable[[], object] = lambda: None
) -> None:
    """Call `times` times, do `then`, wait for the GPU.

    Raises what went wrong; its attribute `lost` says that the GPU's context is of no more use.
    """
    try:
        for _ in range(times):
            decode(*arguments.values())
        then()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
    except Exception as error:
        cause = _cause(error)
        cause.lost = _context_is_lost()  # type: ignore[attr-defined]
        raise cause from None


def _cause(error: Exception) -> BaseException:
    """What the student is to be told of Triton's error."""
    if isinstance(error, CompilationError):
        return _compiler_said(error)
    while isinstance(error, InterpreterError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _compiler_said(error: CompilationError) -> Exception:
    """In one line: what was wrong, and where. The compiler's own text quotes a dozen lines before it."""
    inner = error
    while isinstance(inner.__cause__, CompilationError):
        inner = inner.__cause__
    line = _line_of(inner)
    if line.startswith("raise NotImplementedError"):  # as in the interpreter, which can raise
        return NotImplementedError("a kernel is not written yet").with_traceback(error.__traceback__)
    error.message = f"{inner.error_message or inner.__cause__}, in the kernel's line `{line}`"
    return error


def _line_of(error: CompilationError) -> str:
    """The line of the kernel that the compiler stopped at."""
    lines, number = (error.src or "").splitlines(), getattr(error.node, "lineno", 0)
    return lines[number - 1].strip() if 0 < number <= len(lines) else ""


def _context_is_lost() -> bool:
    """After an address that is nobody's, every later call fails too."""
    if DEVICE == "cpu":
        return False
    try:
        torch.cuda.synchronize()
    except Exception:
        return True
    return False


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """For comparing: NaN is not equal to itself, its bits are."""
    return tensor.contiguous().view(torch.uint8)
