"""Checks of arguments that the kernels share, and of the machine that is to run them."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import triton

FLOATS = (torch.float16, torch.bfloat16, torch.float32)
INTEGERS = (torch.int32, torch.int64)
HEAD_DIMS = (64, 80, 96, 128, 256)

# Triton reads TRITON_INTERPRET when a kernel is decorated, so this is fixed at import too.
INTERPRETED = bool(triton.knobs.runtime.interpret)


def check_machine() -> None:
    """Raise RuntimeError where a Triton kernel can run neither compiled nor interpreted."""
    if not INTERPRETED and not torch.cuda.is_available():
        raise RuntimeError(
            "no NVIDIA GPU is visible and TRITON_INTERPRET is not set: set TRITON_INTERPRET=1 before "
            "Python starts to run these kernels in Triton's interpreter, or run on a machine with a GPU"
        )


def check_tensor(
    name: str,
    tensor: torch.Tensor,
    shape: Sequence[int | str],
    dtypes: Sequence[torch.dtype],
    device: torch.device | None,
) -> None:
    """Raise ValueError unless ``tensor`` has this shape, one of these dtypes, and lies on ``device``.

    A string in ``shape`` names a dimension of any size. The last dimension must be contiguous.
    """
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"{name} is a {type(tensor).__name__}, expected a torch.Tensor")
    expected = "[" + ", ".join(str(size) for size in shape) + "]"
    fits = tensor.dim() == len(shape) and all(
        isinstance(size, str) or size == came for size, came in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} has shape {list(tensor.shape)}, expected {expected}")
    if tensor.dtype not in dtypes:
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(f"{name} is {str(tensor.dtype).removeprefix('torch.')}, expected {names}")
    if tensor.device != device:
        raise ValueError(f"{name} is on {tensor.device}, expected {device}")
    if not INTERPRETED and tensor.device.type != "cuda":
        raise ValueError(f"{name} is on {tensor.device}, expected a CUDA device (or set TRITON_INTERPRET=1)")
    if tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
        raise ValueError(f"{name} has stride {tensor.stride(-1)} in its last dimension, expected 1")


def check_caches(key_cache: torch.Tensor, value_cache: torch.Tensor, device: torch.device | None) -> None:
    """Raise ValueError unless both are paged alike: [num_blocks, block_size, num_kv_heads, head_dim]."""
    expected = ["num_blocks", "block_size", "num_kv_heads", "head_dim"]
    check_tensor("key_cache", key_cache, expected, FLOATS, device)
    check_tensor("value_cache", value_cache, list(key_cache.shape), [key_cache.dtype], device)
    if value_cache.stride() != key_cache.stride():
        raise ValueError(
            f"value_cache has strides {value_cache.stride()}, expected key_cache's {key_cache.stride()}"
        )
    block_size = key_cache.shape[1]
    if block_size not in (16, 32, 64, 128, 256):
        raise ValueError(f"key_cache has block size {block_size}, expected 16, 32, 64, 128 or 256")


def upcast(tensor: torch.Tensor) -> bool:
    """Whether a kernel must compute in float32: the interpreter's bfloat16 arithmetic is wrong."""
    return INTERPRETED and tensor.dtype is torch.bfloat16


def check_attention(
    query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, num_decodes, max_seq_len
) -> None:
    """Raise ValueError unless paged_attention's arguments fit together; reads shapes, never contents."""
    device = getattr(query, "device", None)
    check_tensor("query", query, ["num_tokens", "num_heads", "head_dim"], FLOATS, device)
    check_caches(key_cache, value_cache, device)
    num_tokens, num_heads, head_dim = query.shape
    num_kv_heads = key_cache.shape[2]
    if head_dim not in HEAD_DIMS:
        raise ValueError(f"query has head_dim {head_dim}, expected one of {', '.join(map(str, HEAD_DIMS))}")
    if key_cache.shape[3] != head_dim:
        raise ValueError(f"key_cache has head_dim {key_cache.shape[3]}, expected query's {head_dim}")
    if key_cache.dtype != query.dtype:
        raise ValueError(f"key_cache is {key_cache.dtype}, expected query's {query.dtype}")
    if num_kv_heads == 0 or num_heads % num_kv_heads:
        raise ValueError(f"query has {num_heads} heads, expected a multiple of key_cache's {num_kv_heads}")
    check_tensor("seq_lens", seq_lens, ["num_seqs"], [torch.int32], device)
    num_seqs = seq_lens.shape[0]
    check_tensor("block_table", block_table, [num_seqs, "max_blocks"], [torch.int32], device)
    check_tensor("query_start_loc", query_start_loc, [num_seqs + 1], [torch.int32], device)
    if not scale > 0:
        raise ValueError(f"scale is {scale}, expected a positive number")
    if num_decodes is not None and not 0 <= num_decodes <= min(num_seqs, num_tokens):
        raise ValueError(f"num_decodes is {num_decodes}, expected 0 to {min(num_seqs, num_tokens)}")
    room = block_table.shape[1] * key_cache.shape[1]
    if max_seq_len is not None and max_seq_len > room:
        raise ValueError(
            f"max_seq_len is {max_seq_len}, expected at most {room}, what block_table has room for"
        )


def check_attention_contents(key_cache, block_table, seq_lens, query_start_loc, num_tokens, num_decodes):
    """Raise ValueError unless lengths, starts and block ids are in range; copies them to the host."""
    num_blocks, block_size = key_cache.shape[:2]
    lengths, starts = seq_lens.tolist(), query_start_loc.tolist()
    room = block_table.shape[1] * block_size
    expected = list(range(num_decodes + 1))
    if starts[: num_decodes + 1] != expected:
        raise ValueError(
            f"query_start_loc begins {starts[: num_decodes + 1]}, expected one token a decode: {expected}"
        )
    if starts[0] != 0 or starts[-1] > num_tokens or any(a > b for a, b in pairwise(starts)):
        raise ValueError(
            f"query_start_loc is {starts}, expected 0 up to at most {num_tokens}, never decreasing"
        )
    for seq, length in enumerate(lengths):
        new = starts[seq + 1] - starts[seq]
        if length and not new <= length <= room:
            raise ValueError(f"seq_lens[{seq}] is {length}, expected 0 or {new} to {room}")
        for at, block in enumerate(block_table[seq, : -(-length // block_size)].tolist()):
            if not 0 <= block < num_blocks:
                raise ValueError(f"block_table[{seq}, {at}] is {block}, expected 0 to {num_blocks - 1}")
