"""Writing this step's keys and values into the paged cache."""

import torch
import triton
import triton.language as tl

from kernels.validate import INTEGERS, check_caches, check_machine, check_tensor


@triton.jit
def slot_offset(slot, head, block_stride, token_stride, head_stride, BLOCK_SIZE: tl.constexpr):
    """The offset, in elements, of one head's vector of the token in a slot of a cache."""
    return slot // BLOCK_SIZE * block_stride + slot % BLOCK_SIZE * token_stride + head * head_stride


@triton.jit
def _write_kv_kernel(
    key, value, key_cache, value_cache, slot_mapping, key_token_stride, key_head_stride, value_token_stride,
    value_head_stride, block_stride, token_stride, head_stride, BLOCK_SIZE: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    slot = tl.load(slot_mapping + token).to(tl.int64)
    if slot >= 0:
        dims = tl.arange(0, PADDED_DIM)
        kept = dims < HEAD_DIM
        k_at = key + token * key_token_stride + head * key_head_stride + dims
        v_at = value + token * value_token_stride + head * value_head_stride + dims
        offset = slot_offset(slot, head, block_stride, token_stride, head_stride, BLOCK_SIZE) + dims
        tl.store(key_cache + offset, tl.load(k_at, mask=kept, other=0.0), mask=kept)
        tl.store(value_cache + offset, tl.load(v_at, mask=kept, other=0.0), mask=kept)


def write_kv(
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
) -> None:
    """Put each token's key and value into its slot of the paged cache.

    Args:
        key: [num_tokens, num_kv_heads, head_dim], the caches' dtype.
        value: like key.
        key_cache: [num_blocks, block_size, num_kv_heads, head_dim], written in place.
        value_cache: like key_cache.
        slot_mapping: int32 or int64 [num_tokens], block id × block_size + position in the block. A token with
            slot −1 (padding) is skipped.

    Raises:
        ValueError: an argument's shape, dtype, device or stride is not as above.
        RuntimeError: there is no GPU and TRITON_INTERPRET=1 is not set.
    """
    check_machine()
    check_key_value(key, value, key_cache, value_cache, slot_mapping)
    num_tokens, num_kv_heads, head_dim = key.shape
    if num_tokens == 0:
        return
    _write_kv_kernel[(num_tokens, num_kv_heads)](
        key, value, key_cache, value_cache, slot_mapping, *key.stride()[:2], *value.stride()[:2],
        *key_cache.stride()[:3], BLOCK_SIZE=key_cache.shape[1], HEAD_DIM=head_dim,
        PADDED_DIM=triton.next_power_of_2(head_dim), num_warps=1,
    )  # fmt: skip


def check_key_value(
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
) -> None:
    """Raise ValueError unless a step's keys, values and slots fit the caches."""
    check_caches(key_cache, value_cache, key.device)
    expected = ["num_tokens", *key_cache.shape[2:]]
    check_tensor("key", key, expected, [key_cache.dtype], key.device)
    check_tensor("value", value, list(key.shape), [key_cache.dtype], key.device)
    check_tensor("slot_mapping", slot_mapping, [key.shape[0]], INTEGERS, key.device)
