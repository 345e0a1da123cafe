"""Which operators the engine computes with: one choice, one module's worth of functions."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import SimpleNamespace
from typing import Protocol

import torch
from torch import Tensor

from lessonlib.errors import CourseError

ATTENTION = ("auto", "reference", "native", "triton")


class Ops(Protocol):
    """The functions of `kernels` that a forward pass needs; see `kernels.pointwise` and `kernels.attention`."""

    def paged_attention(self, query: Tensor, key_cache: Tensor, *args: Tensor, **options) -> Tensor: ...
    def rms_norm(self, x: Tensor, weight: Tensor, *, eps: float, residual: Tensor | None = None) -> Tensor: ...
    def rotary_write_kv(self, query: Tensor, key: Tensor, value: Tensor, *args: Tensor) -> None: ...
    def silu_and_mul(self, gate_up: Tensor) -> Tensor: ...


def choose_ops(attention: str, device: torch.device) -> Ops:
    """The operators by name.

    Args:
        attention: "triton" (the course's kernels; on a CPU in Triton's interpreter, right and slow), "native"
            (PyTorch's fused operators), "reference" (plain PyTorch, one sequence at a time), or "auto": triton
            on a GPU, else native.

    Raises `CourseError` for another name, or Triton where it cannot run.
    """
    if attention not in ATTENTION:
        raise CourseError(f"attention {attention!r}: choose one of {', '.join(ATTENTION)}")
    if attention == "auto":
        attention = "triton" if device.type == "cuda" else "native"
    if attention == "native":
        from kernels import native

        return native
    if attention == "reference":
        from kernels import reference

        return reference
    return _triton(device)


def _triton(device: torch.device) -> Ops:
    if importlib.util.find_spec("triton") is None:
        raise CourseError("attention 'triton' needs Triton, which is there for Linux: pip install triton")
    from kernels.attention import paged_attention
    from kernels.pointwise import rms_norm, rotary_write_kv, silu_and_mul
    from kernels.validate import INTERPRETED

    if device.type == "cpu" and not INTERPRETED:
        raise CourseError(
            "attention 'triton' on a CPU runs in Triton's interpreter: set TRITON_INTERPRET=1 before Python starts, "
            "or choose attention 'native'"
        )
    return SimpleNamespace(
        paged_attention=paged_attention,
        rms_norm=rms_norm,
        rotary_write_kv=rotary_write_kv,
        silu_and_mul=silu_and_mul,
    )


def with_attention(ops: Ops, paged_attention: Callable[..., Tensor]) -> Ops:
    """The same operators with another attention, e.g. a student's own."""
    return SimpleNamespace(
        paged_attention=paged_attention,
        rms_norm=ops.rms_norm,
        rotary_write_kv=ops.rotary_write_kv,
        silu_and_mul=ops.silu_and_mul,
    )
