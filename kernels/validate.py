"""Checks that the kernels share: what came, what is due, and which machine can run it."""

from collections.abc import Sequence

import torch
import triton

FLOATS = (torch.float16, torch.bfloat16, torch.float32)
INTEGERS = (torch.int32, torch.int64)

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
    device: torch.device,
) -> None:
    """Raise ValueError unless ``tensor`` has this shape, one of these dtypes, and lies on ``device``.

    A string in ``shape`` names a dimension of any size. The last dimension must be contiguous.
    """
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"{name} is a {type(tensor).__name__}, due is a torch.Tensor")
    due = "[" + ", ".join(str(size) for size in shape) + "]"
    fits = tensor.dim() == len(shape) and all(
        isinstance(size, str) or size == came for size, came in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} has shape {list(tensor.shape)}, due is {due}")
    if tensor.dtype not in dtypes:
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(f"{name} is {str(tensor.dtype).removeprefix('torch.')}, due is {names}")
    if tensor.device != device:
        raise ValueError(f"{name} is on {tensor.device}, due is {device}")
    if not INTERPRETED and tensor.device.type != "cuda":
        raise ValueError(f"{name} is on {tensor.device}, due is a CUDA device (or set TRITON_INTERPRET=1)")
    if tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
        raise ValueError(f"{name} has stride {tensor.stride(-1)} in its last dimension, due is 1")


def check_caches(key_cache: torch.Tensor, value_cache: torch.Tensor, device: torch.device) -> None:
    """Raise ValueError unless both are paged alike: [num_blocks, block_size, num_kv_heads, head_dim]."""
    due = ["num_blocks", "block_size", "num_kv_heads", "head_dim"]
    check_tensor("key_cache", key_cache, due, FLOATS, device)
    check_tensor("value_cache", value_cache, list(key_cache.shape), [key_cache.dtype], device)
    if value_cache.stride() != key_cache.stride():
        raise ValueError(
            f"value_cache has strides {value_cache.stride()}, due are key_cache's {key_cache.stride()}"
        )
    block_size = key_cache.shape[1]
    if block_size not in (16, 32, 64, 128, 256):
        raise ValueError(f"key_cache has block size {block_size}, due is 16, 32, 64, 128 or 256")


def upcast(tensor: torch.Tensor) -> bool:
    """Whether a kernel must compute in float32: the interpreter's bfloat16 arithmetic is wrong."""
    return INTERPRETED and tensor.dtype is torch.bfloat16
