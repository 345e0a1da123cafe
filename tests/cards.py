"""What cards can launch, by compute capability, and whether a compiled kernel asks for more.

The limits are those of NVIDIA's CUDA C++ Programming Guide, "Compute Capabilities", table "Technical Specifications per
Compute Capability": the most shared memory of a thread block, registers of a thread and of a block, threads of a block.
"""

from __future__ import annotations

from typing import Any, NamedTuple

MOST_THREADS, MOST_REGISTERS, REGISTERS_OF_A_BLOCK = 1024, 255, 65_536
REGISTERS_AT_A_TIME = 8  # in which they are given out, to every thread


class Limits(NamedTuple):
    """One compute capability: a card that has it, that card's streaming multiprocessors, and a block's limit in KiB."""

    example: str
    processors: int
    shared_kib: int
    has_bfloat16: bool = True

    @property
    def shared_bytes(self) -> int:
        return 1024 * self.shared_kib


CARDS = {
    "7.5": Limits("T4", 40, 64, has_bfloat16=False),
    "8.0": Limits("A100", 108, 163),
    "8.6": Limits("RTX 3060", 28, 99),
    "8.9": Limits("RTX 4090", 128, 99),
    "9.0": Limits("H100", 132, 227),
    "10.0": Limits("B200", 148, 227),
    "12.0": Limits("RTX 5090", 170, 99),
}


def problems(used: dict[str, Any]) -> list[str]:
    """Why a card cannot launch a kernel, from a line of `offline_kernels.py`; empty where it can."""
    limits, found = CARDS[used["card"]], []
    if used["shared"] > limits.shared_bytes:
        found.append(f"{used['shared']} bytes of shared memory, the card has {limits.shared_bytes}")
    if used["threads"] > MOST_THREADS:
        found.append(f"{used['threads']} threads")
    if used["registers"] is not None:
        each = -(-used["registers"] // REGISTERS_AT_A_TIME) * REGISTERS_AT_A_TIME
        if used["registers"] > MOST_REGISTERS or each * used["threads"] > REGISTERS_OF_A_BLOCK:
            found.append(f"{used['registers']} registers for each of {used['threads']} threads")
    return [f"{used['kernel']} {used['settings']} on {used['card']}: {problem}" for problem in found]
