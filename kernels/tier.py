"""Which machine runs the kernels: asked for once, before anything imports Triton."""

import os
import sys
from typing import NamedTuple


class Tier(NamedTuple):
    """``name`` is "gpu" (compiled) or "interpreter" (Triton's own, on the CPU); tensors go on ``device``."""

    name: str
    device: str


def find() -> Tier:
    """The GPU where there is one, else Triton's interpreter; nothing is changed."""
    import torch

    if os.environ.get("TRITON_INTERPRET") != "1" and torch.cuda.is_available():
        return Tier("gpu", "cuda")
    return Tier("interpreter", "cpu")


def prepare() -> Tier:
    """Choose the GPU where there is one, else Triton's interpreter, and say so in the environment.

    Raises:
        RuntimeError: there is no GPU and Triton was imported before, so that it is too late to choose.
    """
    tier = find()
    if tier.name == "gpu" or os.environ.get("TRITON_INTERPRET") == "1":
        return tier
    if "triton" in sys.modules:
        raise RuntimeError(
            "no NVIDIA GPU is visible and Triton was imported before its interpreter was asked for: restart "
            "Python (in a notebook: the kernel) and call kernels.tier.prepare() first, or set TRITON_INTERPRET=1"
        )
    os.environ["TRITON_INTERPRET"] = "1"
    return tier
