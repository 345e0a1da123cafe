"""How kernels follow each other: on Hopper and later the next one starts while the one before still runs.

Under programmatic dependent launch a program is put on the GPU as soon as all programs of the kernel before it have
called ``gdc_launch_dependents`` or ended. At first it may read only what no kernel of this step writes: its arguments
and the weights. Before its first read of anything else, and before its first store, it must call ``gdc_wait``, which
returns when all earlier kernels are done. This hides the time of a launch, some microseconds for each kernel of a
decode step. Every program must wait, even one without work, since the next kernel relies on it.
"""

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from kernels.cards import card_of
from kernels.validate import INTERPRETED


@cache
def overlapping(device: torch.device) -> dict[str, Any]:
    """Launch options of a kernel with the compile-time argument OVERLAP, which says whether it calls ``gdc_wait``."""
    can_overlap = not INTERPRETED and card_of(device).can_overlap
    return {"OVERLAP": True, "launch_pdl": True} if can_overlap else {"OVERLAP": False}


@triton.jit
def wait_for_kernel_ahead(OVERLAP: tl.constexpr):
    """Let the next kernel start, and wait until the one ahead has ended: the first thing that a kernel does."""
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()
