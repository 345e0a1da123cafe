"""Calls a student's decode kernel: makes the tensors, waits for the answer, takes the time.

It runs in the child, beside `kernels/batches.py` and nothing else of `kernels/`: tensors are drawn there from
a seed, since they are too large to travel. Answers go back as NumPy arrays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from triton.compiler.errors import CompilationError
from triton.runtime.errors import InterpreterError

from kernels.batches import make_batch

READ = ("query", "key_cache", "value_cache", "block_table", "seq_lens")  # arguments in the function's order
UNWRITTEN = 4096.0  # what `out` holds before a call; exact in every dtype, and no answer is as large
WARM_UP = 3
CALLS = 5  # of one lap
FLUSH = 1 << 30  # bytes written before a lap
GPU_BYTES = 16 << 30  # of the card's memory; the course's kernel beside it and others have theirs
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


def attend(decode: Kernel, *batch: Any) -> dict[str, Any]:
    """One call on a small batch, described as `_arguments` has it.

    Returns:
        out: float64 [sequences, heads, head_dim], UNWRITTEN where nothing was written.
        changed: names of the arguments that were only to be read and are not what they were.
    """
    arguments = _arguments(*batch, draw_on="cpu")
    before = {name: _bits(arguments[name]).clone() for name in READ}
    _call(decode, arguments)
    changed = [name for name in READ if not torch.equal(_bits(arguments[name]), before[name])]
    return {"out": arguments["out"].double().cpu().numpy(), "changed": changed}


def warm_up(decode: Kernel, *batch: Any) -> np.ndarray:
    """Lay out a large batch for `lap`, described in the same way, and call the kernel a few times.

    Returns:
        float64 [sequences, head_dim], the answer of another head for each sequence.
    """
    _track.clear()
    arguments = _arguments(*batch, draw_on=DEVICE)
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


def _arguments(
    lengths: Sequence[int],
    heads: Sequence[int],
    head_dim: int,
    dtype: str,
    scale: float,
    seed: int,
    *,
    draw_on: str,
) -> dict[str, Any]:
    """What the student's function is called with: name → value, in its order.

    Args:
        lengths: tokens of each sequence.
        heads: query heads and K/V heads.
        dtype: "float32", "float16" or "bfloat16".
        head_dim, scale, seed: as in `make_batch`; the scale is not its own.
        draw_on: device that draws the numbers; the CPU's are the same everywhere.
    """
    batch = make_batch(
        [(1, length) for length in lengths],
        heads=(heads[0], heads[1]),
        head_dim=head_dim,
        dtype=getattr(torch, dtype),
        device=DEVICE,
        seed=seed,
        draw_on=draw_on,
    )
    out = torch.full_like(batch["query"], UNWRITTEN)
    return {"out": out, **{name: batch[name] for name in READ}, "scale": scale}


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
