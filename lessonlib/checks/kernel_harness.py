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

from kernels.batches import make_batch

UNWRITTEN = 4096.0  # what `out` holds before a call; exact in every dtype, and no answer is as large
WARM_UP = 3
CALLS = 5  # of one lap
FLUSH = 1 << 30  # bytes written before a lap
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"

Kernel = Callable[..., object]


@dataclass
class Track:
    """What laps are run on: the function's arguments, `out` first, and memory to write over."""

    arguments: dict[str, Any]
    flushed: torch.Tensor


_track: list[Track] = []  # at most one: the batches of two cases may not fit on a card together


def attend(
    decode: Kernel,
    lengths: Sequence[int],
    heads: Sequence[int],
    head_dim: int,
    dtype: str,
    scale: float,
    seed: int,
) -> dict[str, Any]:
    """One call on a small batch.

    Returns:
        out: float64 [sequences, heads, head_dim], UNWRITTEN where nothing was written.
        changed: names of the arguments that were only to be read and are not what they were.
    """
    arguments = _arguments(lengths, heads, head_dim, dtype, scale, seed, draw_on="cpu")
    read = {name: value for name, value in arguments.items() if isinstance(value, torch.Tensor)}
    out = read.pop("out")
    before = {name: tensor.clone() for name, tensor in read.items()}
    _call(decode, arguments)
    changed = [name for name, tensor in read.items() if not torch.equal(*map(_bits, (tensor, before[name])))]
    return {"out": out.double().cpu().numpy(), "changed": changed}


def warm_up(
    decode: Kernel,
    lengths: Sequence[int],
    heads: Sequence[int],
    head_dim: int,
    dtype: str,
    scale: float,
    seed: int,
) -> np.ndarray:
    """Lay out a large batch for `lap` and call the kernel a few times. On a GPU only.

    Returns:
        float64 [sequences, head_dim], the answer of another head for each sequence.
    """
    _track.clear()
    arguments = _arguments(lengths, heads, head_dim, dtype, scale, seed, draw_on=DEVICE)
    for _ in range(WARM_UP):
        _call(decode, arguments)
    _track.append(Track(arguments, torch.empty(FLUSH, dtype=torch.uint8, device=DEVICE)))
    sequences = torch.arange(len(lengths), device=DEVICE)
    return arguments["out"][sequences, sequences % heads[0]].double().cpu().numpy()


def lap(decode: Kernel) -> float:
    """Microseconds of one call, from CALLS calls one after another.

    Memory is written over first: keys and values are in no cache then, and the calls have time to line up, so
    that a slow launch is not taken for a slow kernel.
    """
    (track,) = _track
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    track.flushed.zero_()
    start.record()
    for _ in range(CALLS - 1):
        decode(**track.arguments)
    _call(decode, track.arguments, end.record)
    return start.elapsed_time(end) * 1e3 / CALLS


def _arguments(
    lengths: Sequence[int],
    heads: Sequence[int],
    head_dim: int,
    dtype: str,
    scale: float,
    seed: int,
    draw_on: str,
) -> dict[str, Any]:
    """What the student's function is called with, by name."""
    batch = make_batch(
        [(1, length) for length in lengths],
        heads=(heads[0], heads[1]),
        head_dim=head_dim,
        dtype=getattr(torch, dtype),
        device=DEVICE,
        seed=seed,
        draw_on=draw_on,
    )
    del batch["query_start_loc"]
    return {"out": torch.full_like(batch["query"], UNWRITTEN), **batch, "scale": scale}


def _call(decode: Kernel, arguments: dict[str, Any], then: Callable[[], object] = lambda: None) -> None:
    """Call, and wait for the GPU. Raises what went wrong first; its `lost` says that the GPU's context is gone."""
    try:
        decode(**arguments)
        then()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
    except Exception as error:
        cause = _cause(error)
        cause.lost = _context_is_lost()  # type: ignore[attr-defined]
        raise cause from None


def _cause(error: BaseException) -> BaseException:
    """The error inside of Triton's own: the interpreter wraps each, and the compiler knows no `raise`."""
    while error.__cause__ is not None:
        error = error.__cause__
    if "raise NotImplementedError" in str(error):
        return NotImplementedError("a kernel is not written yet").with_traceback(error.__traceback__)
    return error


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
