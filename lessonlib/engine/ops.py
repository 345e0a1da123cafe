"""Which operators the engine computes with: one choice, one set of functions."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from kernels import reference
from kernels.tier import has_triton, triton_remedy
from lessonlib.errors import CourseError

# Up to here the course's product was faster than cuBLAS (benchmarks/results/h100_tune_linear.json).
SKINNY_TOKENS = 32
ATTENTION = ("auto", "reference", "native", "triton")


Packed = Any
"""A matrix as an operator wants it: a tensor, a pair of them, or `amx.Matrix`."""
Product = Callable[[Tensor, Packed], Tensor]


@dataclass(frozen=True)
class Ops:
    """What a forward pass is made of, beside the embedding.

    Attributes:
        rms_norm: see `kernels.pointwise`.
        gated: x and a packed gate_up to silu(gate) × up, where gate and up are x times its two halves.
        rotary_write_kv, paged_attention: see `kernels.pointwise` and `kernels.attention`.
        pack, linear: a matrix as `linear` wants it, and x times that matrix.
        pack_gate_up: a matrix as `gated` wants it.
        argmax: the index of each row's largest value.
        sample: see `kernels.sampling`.
        step_attention: does the work of rotary_write_kv and paged_attention, made anew each step; see
            `native.NativeAttention`.
    """

    rms_norm: Callable[..., Tensor]
    gated: Product
    rotary_write_kv: Callable[..., None] | None = None
    paged_attention: Callable[..., Tensor] | None = None
    linear: Product = F.linear
    pack: Callable[[Tensor], Packed] = lambda weight: weight
    pack_gate_up: Callable[[Tensor], Packed] = lambda weight: weight
    argmax: Callable[[Tensor], Tensor] = lambda logits: logits.argmax(-1)
    sample: Callable[..., Tensor] = reference.sample
    step_attention: Callable[..., Callable[[int, Tensor], Tensor]] | None = None


def choose_ops(attention: str | Callable[..., Tensor], device: torch.device) -> Ops:
    """The operators by name.

    Args:
        attention: "triton" (the course's kernels; on a CPU in Triton's interpreter, right and slow), "native"
            (PyTorch's own operators, for a CPU), "reference" (plain PyTorch, one sequence at a time), or
            "auto": triton on a GPU, else native. Or a function with the signature of
            `kernels.reference.paged_attention`: your own, beside the reference's other operators.

    Raises `CourseError` for another name, or operators that cannot run on the device.
    """
    if callable(attention):
        return _reference(attention)
    if attention not in ATTENTION:
        raise CourseError(f"attention {attention!r}: choose one of {', '.join(ATTENTION)}")
    if attention == "auto":
        attention = "triton" if device.type == "cuda" else "native"
    if attention == "native" and device.type != "cpu":
        raise CourseError("attention 'native' is for a CPU: choose triton or reference on a GPU")
    if attention == "native":
        return _native()
    return _reference() if attention == "reference" else _triton(device)


def _native() -> Ops:
    if importlib.util.find_spec("numba") is None:
        raise CourseError(
            "attention 'native' needs Numba: pip install numba, or choose attention 'reference'"
        )
    from lessonlib.engine.cpu import native

    return Ops(
        native.rms_norm,
        native.gated,
        step_attention=native.NativeAttention,
        linear=native.linear,
        pack=native.pack,
        pack_gate_up=native.pack_gate_up,
        argmax=native.argmax,
    )


def _reference(paged_attention: Callable[..., Tensor] | None = None) -> Ops:
    attention = paged_attention or reference.paged_attention
    gated = _gated(reference.silu_and_mul, F.linear)
    return Ops(reference.rms_norm, gated, reference.rotary_write_kv, attention)


def _triton(device: torch.device) -> Ops:
    if not has_triton():
        raise CourseError(
            f"attention 'triton' needs Triton, which is not installed: {triton_remedy()}; "
            f"or choose attention {'native' if device.type == 'cpu' else 'reference'!r}"
        )
    from kernels.attention import paged_attention
    from kernels.cards import card_of
    from kernels.linear import skinny_linear
    from kernels.pointwise import rms_norm, rotary_write_kv, silu_and_mul
    from kernels.sampling import sample
    from kernels.validate import INTERPRETED

    if device.type == "cpu" and not INTERPRETED:
        raise CourseError(
            "attention 'triton' on a CPU runs in Triton's interpreter: set TRITON_INTERPRET=1 before Python starts, "
            "or choose attention 'native'"
        )

    # Triton leaves a Turing card's tensor cores idle, torch's product does not: 4 tokens do without them.
    most_tokens = SKINNY_TOKENS if device.type == "cpu" or card_of(device).has_tensor_cores else 4

    def linear(x: Tensor, weight: Tensor) -> Tensor:
        is_skinny = x.is_cuda and len(x) <= most_tokens and x.dtype is not torch.float32
        return skinny_linear(x, weight) if is_skinny else F.linear(x, weight)

    gated = _gated(silu_and_mul, linear)
    return Ops(rms_norm, gated, rotary_write_kv, paged_attention, linear, sample=sample)


def _gated(silu_and_mul: Callable[[Tensor], Tensor], linear: Product) -> Product:
    """Both halves as one product."""
    return lambda x, gate_up: silu_and_mul(linear(x, gate_up))
