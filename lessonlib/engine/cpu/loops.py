"""Two operators that PyTorch has only in pieces on a CPU, as plain loops that Numba compiles.

Between two matrix products the processor's caches are full of weights, and each small operator starts cold: six of
them cost as much as the product. Here a layer's norm is one call, and so are its rotation and store.

Numba has no bfloat16: such an array comes in as its bits, which are the upper half of a float32's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit, types
from numba.extending import overload
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16)


def _compiled(function: Callable) -> Any:
    """Compiled for the types of its first call, and kept on disk where there is room for it."""
    # Sums may be reordered, so that they go eight at a time; a NaN stays a NaN.
    loop = njit(fastmath={"reassoc", "contract", "arcp", "nsz"}, nogil=True)(function)
    with contextlib.suppress(RuntimeError):  # no folder that can be written
        loop.enable_caching()
    return loop


def array(tensor: Tensor) -> np.ndarray:
    """The tensor's memory as an array that the loops take: float32, or the bits of bfloat16."""
    return (tensor.view(torch.uint16) if tensor.dtype is torch.bfloat16 else tensor).numpy()


def rms_norm(x: Tensor, weight: Tensor, *, eps: float, residual: Tensor | None = None) -> Tensor:
    """x over its root mean square, times weight; with a residual, x is added to it in place first.

    x, residual: `[num_tokens, width]`, weight `[width]`, all of one of DTYPES.
    """
    out = torch.empty_like(x)
    if residual is None:
        _rms_norm(array(x), array(weight), eps, array(out))
    else:
        _add_rms_norm(array(residual), array(x), array(weight), eps, array(out))
    return out


@_compiled
def rotate_and_store(
    heads: np.ndarray, cos_sin: np.ndarray, positions: np.ndarray, slots: np.ndarray, cache: np.ndarray
) -> None:
    """Rotate queries and keys in place by their positions, and store keys and values.

    Args:
        heads: `[num_tokens, num_heads + 2 * num_kv_heads, head_dim]`: queries, keys, values; an `array`.
        cos_sin: float32 `[max_positions, head_dim]`, cosines before sines.
        positions, slots: int32 `[num_tokens]`; slots are places in `cache`.
        cache: `[num_slots, 2, num_kv_heads, head_dim]`, keys before values; an `array`.
    """
    num_tokens, num_heads, head_dim = heads.shape
    num_kv_heads, half = cache.shape[2], head_dim // 2
    first_key, first_value = num_heads - 2 * num_kv_heads, num_heads - num_kv_heads
    for token in range(num_tokens):
        turn = cos_sin[positions[token]]
        for head in range(first_value):
            for i in range(half):
                cos, sin = turn[i], turn[half + i]
                first, second = _read(heads[token, head, i]), _read(heads[token, head, half + i])
                heads[token, head, i] = _rounded(first * cos - second * sin, heads)
                heads[token, head, half + i] = _rounded(second * cos + first * sin, heads)
        slot = slots[token]
        for head in range(num_kv_heads):
            for i in range(head_dim):
                cache[slot, 0, head, i] = heads[token, first_key + head, i]
                cache[slot, 1, head, i] = heads[token, first_value + head, i]


@_compiled
def _add_rms_norm(residual, x, weight, eps, out):
    for row in range(x.shape[0]):
        for i in range(x.shape[1]):
            residual[row, i] = _rounded(_read(residual[row, i]) + _read(x[row, i]), x)
    _rms_norm(residual, weight, eps, out)


@_compiled
def _rms_norm(x, weight, eps, out):
    num_rows, width = x.shape
    for row in range(num_rows):
        total = np.float32(0)
        for i in range(width):
            value = _read(x[row, i])
            total += value * value
        scale = np.float32(1 / np.sqrt(total / width + eps))
        for i in range(width):
            normed = _rounded(_read(x[row, i]) * scale, x)
            out[row, i] = _rounded(_read(normed) * _read(weight[i]), x)


def _read(value: Any) -> Any:
    """A float32, or the bits of a bfloat16, as a float32. Compiled: see below."""
    raise NotImplementedError


def _rounded(value: Any, like: Any) -> Any:
    """A float32 as an element of `like`: itself, or the bits of the nearest bfloat16 (ties to even)."""
    raise NotImplementedError


@overload(_read, inline="always")
def _read_compiled(value):
    if isinstance(value, types.Float):
        return lambda value: value
    return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)


@overload(_rounded, inline="always")
def _rounded_compiled(value, like):
    if isinstance(like.dtype, types.Float):
        return lambda value, like: value

    def nearest(value, like):
        bits = np.float32(value).view(np.uint32)
        last = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
        return np.uint16(np.uint32(bits + np.uint32(0x7FFF) + last) >> np.uint32(16))

    return nearest
