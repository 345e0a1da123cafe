"""How kernels follow each other: on Hopper and later the next one starts while the one before still runs.

Under programmatic dependent launch a program is put on the GPU as soon as all programs of the kernel before it have
called ``gdc_launch_dependents`` or ended. It may then do what depends on nobody (look at its settings, ask for weights)
and must call ``gdc_wait``, which returns when everything before it is done, ahead of its first read of what others
wrote and ahead of its first store. So the time of a launch, some microseconds of a decode step's every kernel, is
hidden. Every program must wait, even one without work: the kernel after it trusts in that.
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
    """What to launch a kernel with that calls ``gdc_wait`` where OVERLAP says so."""
    can_overlap = not INTERPRETED and card_of(device).can_overlap
    return {"OVERLAP": True, "launch_pdl": True} if can_overlap else {"OVERLAP": False}


@triton.jit
def wait_for_kernel_ahead(OVERLAP: tl.constexpr):
    """Let the next kernel start, and wait until the one ahead has ended: the first thing that a kernel does."""
    if OVERLAP:
        gdc_launch_dependents()
        gdc_wait()
