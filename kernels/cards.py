"""What a card can launch: the limits by which kernels choose their settings.

A program may have so many bytes of shared memory and no more, or the launch fails. NVIDIA's CUDA C++ Programming
Guide lists the limits by compute capability ("Technical Specifications per Compute Capability"); a card that is
there is asked for its own.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple, TypeVar

import torch

Settings = TypeVar("Settings")
RESERVED = 1024  # bytes: barriers and the like, beside what a kernel loads


class Card(NamedTuple):
    """One GPU: its compute capability, its streaming multiprocessors, and the bytes that one program may share."""

    capability: tuple[int, int]
    processors: int
    shared_memory: int

    @property
    def has_tensor_cores(self) -> bool:
        """Whether ``tl.dot`` runs on them: Triton uses Ampere's and later ones; Turing's lie idle."""
        return self.capability >= (8, 0)

    @property
    def pipeline_stages(self) -> int:
        """Tiles of float32 in flight: copies that need no thread to wait came with Ampere."""
        return 2 if self.has_tensor_cores else 1

    @property
    def can_overlap(self) -> bool:
        """Whether a kernel may start before the one ahead of it has ended: from Hopper on."""
        return self.capability >= (9, 0)


@cache
def card_of(device: torch.device) -> Card:
    """The limits of a CUDA device."""
    found: Any = torch.cuda.get_device_properties(device)  # torch's stubs leave the last one out
    capability = (found.major, found.minor)
    return Card(capability, found.multi_processor_count, found.shared_memory_per_block_optin)


def first_that_fits(choices: Iterable[tuple[Settings, int]], device: torch.device) -> Settings:
    """The first of some (settings, bytes of shared memory that they need at the most) that the card can launch.

    Raises:
        ValueError: it can launch none of them.
    """
    room, least = card_of(device).shared_memory - RESERVED, 0
    for settings, needed in choices:
        if needed <= room:
            return settings
        least = needed
    raise ValueError(f"{device} gives a program {room} bytes of shared memory, and the kernel needs {least}")
