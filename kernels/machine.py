"""Where a measured figure comes from (machine, versions, commit, command), and how fast memory is copied there."""

import datetime
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
COPIED_BYTES = {"cuda": 4 << 30, "cpu": 256 << 20}  # far more than any cache holds


def machine(*packages: str, device: str | None = None) -> dict:
    """Machine, versions, date, commit and command.

    Args:
        packages: named beside torch, Triton and vLLM.
        device: "cuda" or "cpu", which the machine is named after; by default the GPU where there is one.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("triton", "vllm", *packages):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "machine": torch.cuda.get_device_name() if device == "cuda" else f"{cpu()}, {os.cpu_count()} cores",
        "versions": versions,
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "command": command(sys.argv),
    }


def commit() -> str:
    """The clone's commit, or "unknown"; COURSE_COMMIT overrides it, for a copy without a git folder."""
    if chosen := os.environ.get("COURSE_COMMIT"):
        return chosen
    if not (ROOT / ".git").exists():  # a repository around an installed wheel is another project's
        return "unknown"
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        found = ""
    return found or "unknown"


def command(argv: Sequence[str]) -> str:
    """A command as one types it in the repository's folder; a path outside of it is shortened to its name."""
    script, *options = argv
    path = Path(script).resolve()
    if path.name == "lesson":  # the package's own command, wherever it is installed
        return " ".join(["lesson", *map(_relative, options)])
    if path.is_relative_to(ROOT) and path.suffix == ".py":
        module = path.relative_to(ROOT).with_suffix("")
        called = ["-m", ".".join((module.parent if module.name == "__main__" else module).parts)]
    else:
        called = [_relative(script)]
    return " ".join(["python", *called, *map(_relative, options)])


def _relative(argument: str) -> str:
    """An argument of a command: an absolute path relative to the repository, or `.../name` outside of it."""
    path = Path(argument)
    if not path.is_absolute():
        return argument
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else f".../{path.name}"


def cpu() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine() or "unknown"


def copy_bandwidth(device: str | torch.device) -> float:
    """GB/s of a large copy on the device, bytes read and bytes written counted: the ceiling for decode.

    On a CPU it is the fastest of ten copies, since other processes can only slow one down, with as many threads as
    PyTorch has; on a GPU it is the median. A card with little free memory copies what fits in half of it.
    """
    device = torch.device(device)
    size = COPIED_BYTES[device.type]
    if device.type == "cuda":
        size = min(size, torch.cuda.mem_get_info(device)[0] // 4)
    source = torch.randn(size // 4, device=device)
    target = torch.empty_like(source)
    times = [_seconds_of_copy(source, target) for _ in range(12)][2:]
    typical = statistics.median(times) if device.type == "cuda" else min(times)
    return 2 * source.nbytes / typical / 1e9


def _seconds_of_copy(source: torch.Tensor, target: torch.Tensor) -> float:
    if not source.is_cuda:
        began = time.perf_counter()
        target.copy_(source)
        return time.perf_counter() - began
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    target.copy_(source)
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3
