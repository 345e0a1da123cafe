"""What happens between the matrix products of a Llama layer, one launch each.

Each of these moves a few megabytes and computes next to nothing: fused, the data passes through memory once
instead of once an operation. Sums and products run in float32; results are rounded where PyTorch's unfused
layers round, so that a fused model gives the same answers.
"""

import torch
import triton
import triton.language as tl

from kernels.cache import check_key_value, slot_offset
from kernels.launch import overlapping, wait_for_kernel_ahead
from kernels.validate import FLOATS, INTEGERS, check_machine, check_tensor


@triton.jit
def _rms_norm_kernel(
    out, x, weight, residual, eps, width, out_stride, x_stride, residual_stride, ADD: tl.constexpr,
    PADDED: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, PADDED)
    kept = columns < width
    factor = tl.load(weight + columns, mask=kept, other=0.0).to(tl.float32)
    wait_for_kernel_ahead(OVERLAP)
    wide = tl.load(x + row * x_stride + columns, mask=kept, other=0.0).to(tl.float32)
    if ADD:
        at = residual + row * residual_stride + columns
        added = (wide + tl.load(at, mask=kept, other=0.0).to(tl.float32)).to(residual.dtype.element_ty)
        tl.store(at, added, mask=kept)
        wide = added.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 0) / width + eps)
    normed = (wide * scale).to(x.dtype.element_ty).to(tl.float32)
    tl.store(out + row * out_stride + columns, (normed * factor).to(out.dtype.element_ty), mask=kept)


def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    *,
    eps: float,
    residual: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Divide each row by its root mean square and multiply by weight (Zhang and Sennrich 2019).

    Args:
        x: [num_tokens, width], float16, bfloat16 or float32.
        weight: [width], like x.
        eps: added to the mean square.
        residual: like x or None. x is added to it in place first and the sum is what gets normed: the
            stream past the layer and its norm in one pass.
        out: like x; None: made here. May be x.

    Returns:
        out, [num_tokens, width].

    Raises:
        ValueError: an argument's shape, dtype, device or stride is not as above.
        RuntimeError: there is no GPU and TRITON_INTERPRET=1 is not set.
    """
    check_machine()
    check_tensor("x", x, ["num_tokens", "width"], FLOATS, x.device)
    num_tokens, width = x.shape
    check_tensor("weight", weight, [width], [x.dtype], x.device)
    if residual is not None:
        check_tensor("residual", residual, list(x.shape), [x.dtype], x.device)
    if out is None:
        out = torch.empty_like(x)
    check_tensor("out", out, list(x.shape), [x.dtype], x.device)
    if num_tokens:
        padded = triton.next_power_of_2(width)
        added = x if residual is None else residual
        _rms_norm_kernel[(num_tokens,)](
            out, x, weight, added, eps, width, out.stride(0), x.stride(0), added.stride(0),
            ADD=residual is not None, PADDED=padded, num_warps=min(16, max(1, padded // 512)),
            **overlapping(x.device),
        )  # fmt: skip
    return out


@triton.jit
def _rotary_kernel(
    query, key, value, positions, cos_sin, key_cache, value_cache, slot_mapping, query_token_stride,
    query_head_stride, key_token_stride, key_head_stride, value_token_stride, value_head_stride,
    cos_sin_stride, block_stride, token_stride, head_stride, BLOCK_SIZE: tl.constexpr, GROUP: tl.constexpr,
    ROWS: tl.constexpr, HALF: tl.constexpr, PADDED_HALF: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One token and one K/V head with its query heads."""
    wait_for_kernel_ahead(OVERLAP)
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    dims = tl.arange(0, PADDED_HALF)
    kept = dims < HALF
    angle = cos_sin + tl.load(positions + token).to(tl.int64) * cos_sin_stride + dims
    cos = tl.load(angle, mask=kept, other=0.0).to(tl.float32)
    sin = tl.load(angle + HALF, mask=kept, other=0.0).to(tl.float32)

    rows = tl.arange(0, ROWS)
    at = query + token * query_token_stride
    at += ((head * GROUP + rows) * query_head_stride)[:, None] + dims[None, :]
    mask = (rows < GROUP)[:, None] & kept[None, :]
    first = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(at + HALF, mask=mask, other=0.0).to(tl.float32)
    tl.store(at, (first * cos - second * sin).to(query.dtype.element_ty), mask=mask)
    tl.store(at + HALF, (second * cos + first * sin).to(query.dtype.element_ty), mask=mask)

    slot = tl.load(slot_mapping + token).to(tl.int64)
    if slot >= 0:
        k_at = key + token * key_token_stride + head * key_head_stride + dims
        v_at = value + token * value_token_stride + head * value_head_stride + dims
        offset = slot_offset(slot, head, block_stride, token_stride, head_stride, BLOCK_SIZE) + dims
        k_first = tl.load(k_at, mask=kept, other=0.0).to(tl.float32)
        k_second = tl.load(k_at + HALF, mask=kept, other=0.0).to(tl.float32)
        rotated = k_first * cos - k_second * sin
        tl.store(key_cache + offset, rotated.to(key_cache.dtype.element_ty), mask=kept)
        rotated = k_second * cos + k_first * sin
        tl.store(key_cache + offset + HALF, rotated.to(key_cache.dtype.element_ty), mask=kept)
        tl.store(value_cache + offset, tl.load(v_at, mask=kept, other=0.0), mask=kept)
        tl.store(value_cache + offset + HALF, tl.load(v_at + HALF, mask=kept, other=0.0), mask=kept)


def rotary_write_kv(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    positions: torch.Tensor,
    cos_sin: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
) -> None:
    """Rotate each query and key by its position (RoPE, Su et al. 2021) and write K/V to the paged cache.

    The rotation pairs dimension i with i + head_dim / 2, as Llama checkpoints are laid out.

    Args:
        query: [num_tokens, num_heads, head_dim], rotated in place.
        key: [num_tokens, num_kv_heads, head_dim], the dtype of query and caches; left as it is.
        value: like key.
        positions: int32 or int64 [num_tokens].
        cos_sin: [max_position, head_dim], any float dtype (float32 is best): the cosines of the head_dim / 2
            angles of a position, then their sines.
        key_cache: [num_blocks, block_size, num_kv_heads, head_dim]; gets the rotated keys.
        value_cache: like key_cache.
        slot_mapping: int32 or int64 [num_tokens]; slot −1 writes nothing (the query is rotated all the same).

    Raises:
        ValueError: an argument's shape, dtype, device or stride is not as above.
        RuntimeError: there is no GPU and TRITON_INTERPRET=1 is not set.
    """
    check_machine()
    check_key_value(key, value, key_cache, value_cache, slot_mapping)
    num_tokens, num_kv_heads, head_dim = key.shape
    check_tensor("query", query, [num_tokens, "num_heads", head_dim], [key.dtype], key.device)
    check_tensor("positions", positions, [num_tokens], INTEGERS, key.device)
    check_tensor("cos_sin", cos_sin, ["max_position", head_dim], FLOATS, key.device)
    num_heads = query.shape[1]
    if num_kv_heads == 0 or num_heads % num_kv_heads:
        raise ValueError(f"query has {num_heads} heads, expected a multiple of key's {num_kv_heads}")
    if head_dim % 2:
        raise ValueError(f"query has head_dim {head_dim}, expected an even number")
    if num_tokens == 0:
        return
    group = num_heads // num_kv_heads
    _rotary_kernel[(num_tokens, num_kv_heads)](
        query, key, value, positions, cos_sin, key_cache, value_cache, slot_mapping, *query.stride()[:2],
        *key.stride()[:2], *value.stride()[:2], cos_sin.stride(0), *key_cache.stride()[:3],
        BLOCK_SIZE=key_cache.shape[1], GROUP=group, ROWS=triton.next_power_of_2(group), HALF=head_dim // 2,
        PADDED_HALF=triton.next_power_of_2(head_dim // 2), num_warps=1, **overlapping(query.device),
    )  # fmt: skip


@triton.jit
def _silu_and_mul_kernel(
    out, gate_up, width, out_stride, gate_up_stride, TILE: tl.constexpr, OVERLAP: tl.constexpr
):
    wait_for_kernel_ahead(OVERLAP)
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * TILE + tl.arange(0, TILE)
    kept = columns < width
    at = gate_up + row * gate_up_stride + columns
    gate = tl.load(at, mask=kept, other=0.0).to(tl.float32)
    up = tl.load(at + width, mask=kept, other=0.0).to(tl.float32)
    product = gate * tl.sigmoid(gate) * up
    tl.store(out + row * out_stride + columns, product.to(out.dtype.element_ty), mask=kept)


def silu_and_mul(gate_up: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """silu(gate) × up, the gated half of a SwiGLU layer (Shazeer 2020).

    Args:
        gate_up: [num_tokens, 2 × width], gate first; float16, bfloat16 or float32.
        out: [num_tokens, width], like gate_up; None: made here.

    Returns:
        out, [num_tokens, width].

    Raises:
        ValueError: an argument's shape, dtype, device or stride is not as above.
        RuntimeError: there is no GPU and TRITON_INTERPRET=1 is not set.
    """
    check_machine()
    check_tensor("gate_up", gate_up, ["num_tokens", "2 x width"], FLOATS, gate_up.device)
    num_tokens, both = gate_up.shape
    if both % 2:
        raise ValueError(f"gate_up has width {both}, expected an even number")
    width = both // 2
    if out is None:
        out = gate_up.new_empty(num_tokens, width)
    check_tensor("out", out, [num_tokens, width], [gate_up.dtype], gate_up.device)
    if num_tokens and width:
        _silu_and_mul_kernel[(num_tokens, triton.cdiv(width, 1024))](
            out, gate_up, width, out.stride(0), gate_up.stride(0), TILE=1024, num_warps=4,
            **overlapping(gate_up.device),
        )  # fmt: skip
    return out
