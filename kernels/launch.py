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

from kernels.validate import INTERPRETED


@cache
def can_overlap(device: torch.device) -> bool:
    """Programmatic dependent launch came with Hopper."""
    return not INTERPRETED and torch.cuda.get_device_capability(device)[0] >= 9


@cache
def overlapping(device: torch.device) -> dict[str, Any]:
    """What to launch a kernel with that calls ``gdc_wait`` where OVERLAP says so."""
    return {"OVERLAP": True, "launch_pdl": True} if can_overlap(device) else {"OVERLAP": False}
