"""Facts about the machine, its copy bandwidth among them, measured in a process of its own like any contender's."""

from __future__ import annotations

import os
from typing import Any

import psutil
import torch

from kernels.machine import copy_bandwidth, cpu
from lessonlib.contenders.job import Job, Measurement, Row
from lessonlib.contenders.registry import Entry


class Machine:
    """An `engine.Engine` that runs no work: its settings are the facts about the machine."""

    packages = ("torch",)

    def __init__(self, job: Job) -> None:
        self.settings: dict[str, Any] = {
            "cpu": cpu(),
            "cores": os.cpu_count(),
            "cores_used": list(job.cores),
            "threads": job.threads,
            "memory_bytes": psutil.virtual_memory().total,
            "copy_bandwidth": 1e9 * copy_bandwidth(job.device),
        }
        if job.device == "cuda":
            self.settings |= gpu()

    def run(self, row: Row) -> Measurement:
        raise NotImplementedError("the machine runs no work")


def gpu() -> dict[str, Any]:
    """The card's name, its memory in bytes, whether it computes in bfloat16, and the version of CUDA."""
    card = torch.cuda.get_device_properties(0)
    return {
        "gpu": card.name,
        "gpu_bytes": card.total_memory,
        "has_bfloat16": torch.cuda.is_bf16_supported(including_emulation=False),
        "cuda": torch.version.cuda,
    }


def make(entry: Entry, job: Job) -> Machine:
    """The measured machine."""
    return Machine(job)
