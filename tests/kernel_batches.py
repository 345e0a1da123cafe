"""How close a kernel's answer must be, beside the batches that it is tried on."""

import torch

from kernels.batches import NO_BLOCK, make_batch, truth

__all__ = ["BOUNDS", "NO_BLOCK", "assert_close", "error", "make_batch", "truth"]

# Relative error allowed against float64, by dtype.
BOUNDS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def error(out: torch.Tensor, due: torch.Tensor) -> float:
    """‖out − due‖ / ‖due‖, NaN and all; the plain norm of out where zeros are due."""
    difference = (out.double() - due.double()).norm()
    return (difference / due.double().norm() if due.any() else difference).item()


def assert_close(out: torch.Tensor, due: torch.Tensor) -> None:
    came = error(out, due)
    assert came < BOUNDS[out.dtype], f"relative error {came:.2e}, expected below {BOUNDS[out.dtype]:.0e}"
