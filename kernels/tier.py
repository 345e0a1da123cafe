"""Which machine runs the kernels: asked for once, before anything imports Triton."""

import os
import sys
from importlib.util import find_spec
from typing import NamedTuple


class Tier(NamedTuple):
    """Where kernels run: ``name`` is "gpu" (compiled), "interpreter" (Triton's own, on the CPU) or "python" (there
    is no Triton, so nowhere); tensors go on ``device``."""

    name: str
    device: str


def has_triton() -> bool:
    """Whether Triton is installed. Its builds are for Linux."""
    return find_spec("triton") is not None


def triton_remedy() -> str:
    """How to get Triton on this machine, or where there is one."""
    if sys.platform == "linux":
        return "pip install triton"
    return "its builds are for Linux: take a Linux machine, WSL, a container or Google Colab"


def find() -> Tier:
    """The GPU where there is one, else Triton's interpreter; nothing is changed."""
    if find_spec("torch") is None or not has_triton():
        return Tier("python", "cpu")
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
    if tier.name != "interpreter" or os.environ.get("TRITON_INTERPRET") == "1":
        return tier
    if "triton" in sys.modules:
        raise RuntimeError(
            "no NVIDIA GPU is visible and Triton was imported before its interpreter was asked for: restart "
            "Python (in a notebook: the kernel) and call kernels.tier.prepare() first, or set TRITON_INTERPRET=1"
        )
    os.environ["TRITON_INTERPRET"] = "1"
    return tier
