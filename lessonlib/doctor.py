"""`lesson doctor`: what this machine can run of the course, and how to get the rest."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from kernels.tier import has_triton, triton_remedy
from lessonlib import __version__
from lessonlib.checks.sandbox.confine import BUBBLEWRAP, best_level, why_no_better
from lessonlib.contenders.process import bridge_in, vllm_python
from lessonlib.errors import CourseError
from lessonlib.fetch import is_present, model_folder

PYTHON_TIER = "python"
GPU_TIER = "gpu"
NO_TIER = "none"
TIERS = {
    NO_TIER: "a part marked MISSING is needed: the line below it says how to get it",
    PYTHON_TIER: "all notebooks and exercises, without a GPU: kernels are run by Triton's interpreter, slowly",
    GPU_TIER: "all notebooks and exercises, with kernels compiled for the NVIDIA GPU, and its speed to measure",
}
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Part:
    """One thing the course uses: whether it is here, which, for what tier, and the remedy if it is not."""

    name: str
    found: bool
    detail: str
    tier: str
    remedy: str = ""
    optional: bool = False


def examine() -> list[Part]:
    """Every part of both tiers, each looked at on this machine."""
    packages = [
        "torch",
        "numpy",
        "matplotlib",
        "ipywidgets",
        "anywidget",
        "jupyterlab",
        "transformers",
    ]
    parts = [_python(), *[_package(name) for name in packages]]
    return [*parts, _triton(), _model(), _browser(), _sandbox(), _vllm(), _gpu()]


def report() -> dict[str, Any]:
    """The parts and the tier they add up to, ready for JSON."""
    parts = examine()
    return {
        "course": __version__,
        "platform": platform.platform(),
        "tier": tier_of(parts),
        "parts": [asdict(part) for part in parts],
    }


def tier_of(parts: list[Part]) -> str:
    """ "gpu", "python", or "none" where a part that the python tier needs is missing."""
    if any(not part.found and not part.optional and part.tier == PYTHON_TIER for part in parts):
        return NO_TIER
    gpu_parts = [part for part in parts if part.tier == GPU_TIER]
    return GPU_TIER if all(part.found for part in gpu_parts) else PYTHON_TIER


def text(found: dict[str, Any], say: Callable[[str], None] = print) -> None:
    """The report for people: one line a part, and a remedy under each that is missing."""
    say(f"continuous-batching-course {found['course']} on {found['platform']}")
    for part in found["parts"]:
        mark = "ok" if part["found"] else ("--" if part["optional"] else "MISSING")
        say(f"  {mark:<8}{part['name']:<14}{part['detail']}")
        if not part["found"]:
            say(f"          {'to get it:':<14}{part['remedy']}")
    say(f"tier: {found['tier']}")
    for tier, meaning in TIERS.items():
        say(f"  {'->' if tier == found['tier'] else '  '} {tier:<7}{meaning}")


def _python() -> Part:
    version = platform.python_version()
    return Part("python", sys.version_info >= (3, 11), version, PYTHON_TIER, "install Python 3.11 or newer")


def _package(name: str) -> Part:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Part(name, False, "not installed", PYTHON_TIER, "run `make setup`")
    return Part(name, importlib.util.find_spec(name) is not None, version, PYTHON_TIER, "run `make setup`")


def _triton() -> Part:
    """Compiles kernels on a GPU, interprets them elsewhere; the rest of the course goes without."""
    if has_triton():
        return Part("triton", True, metadata.version("triton"), GPU_TIER, optional=True)
    remedy = f"for the kernels of notebook 04 and exercise ex04_kernel only: {triton_remedy()}"
    return Part("triton", False, "not installed", GPU_TIER, remedy, optional=True)


def _model() -> Part:
    folder = model_folder()
    found = is_present(folder)
    return Part(
        "SmolLM2", found, str(folder) if found else "not fetched", PYTHON_TIER, "run `lesson model fetch`"
    )


def _browser() -> Part:
    path = find_chromium()
    remedy = "for the browser tests only: `apt-get install chromium` (Debian) or your system's package"
    return Part("chromium", path is not None, path or "not installed", PYTHON_TIER, remedy, optional=True)


def find_chromium() -> str | None:
    """Where Chromium or Chrome is installed."""
    return next((path for name in CHROMIUMS if (path := shutil.which(name))), None)


def _sandbox() -> Part:
    level = best_level()
    remedy = "to shut students' files in: `apt-get install bubblewrap` (Debian), where namespaces are allowed"
    if sys.platform != "linux":
        remedy = "to shut students' files in, as for grading a class: a Linux machine with bubblewrap"
    if "cannot enter" in (why := why_no_better()):
        remedy = f"{remedy}; or {why}"
    detail = str(level).removeprefix("sandbox: ")
    return Part("sandbox", level == BUBBLEWRAP, detail, PYTHON_TIER, remedy, optional=True)


def _vllm() -> Part:
    """vLLM has a Python of its own, which is asked for its version."""
    remedy = (
        "for the comparison with vLLM only: `make vllm`, or point LESSONLIB_VLLM_PYTHON at a Python with it"
    )
    if sys.platform != "linux":
        remedy = "for the comparison with vLLM only: a Linux machine; notebook 06 shows recorded runs"
    ask = "from lessonlib.contenders.vllm_engine import installed_version as v; print(v())"
    try:
        python = vllm_python()
        words = [python, "-c", ask]
        with tempfile.TemporaryDirectory() as folder:
            path = bridge_in(Path(folder))
            told = subprocess.run(words, cwd=path, capture_output=True, text=True, timeout=60)
    except (CourseError, OSError, subprocess.TimeoutExpired) as error:
        return Part("vllm", False, str(error).split(":")[0], PYTHON_TIER, remedy, optional=True)
    if told.returncode:
        reason = told.stderr.strip().splitlines()[-1].split(": ", 1)[-1]
        return Part("vllm", False, reason, PYTHON_TIER, remedy, optional=True)
    return Part("vllm", True, f"{told.stdout.strip()}, {python}", PYTHON_TIER, optional=True)


def _gpu() -> Part:
    remedy = "a machine with an NVIDIA GPU, its driver, and a CUDA build of torch"
    if importlib.util.find_spec("torch") is None:
        return Part("NVIDIA GPU", False, "torch is missing", GPU_TIER, remedy, optional=True)
    import torch

    if not torch.cuda.is_available():
        return Part("NVIDIA GPU", False, "none that torch can use", GPU_TIER, remedy, optional=True)
    card = torch.cuda.get_device_properties(0)
    return Part(
        "NVIDIA GPU",
        True,
        f"{card.name}, {card.total_memory / 2**30:.0f} GiB, compute capability {card.major}.{card.minor}",
        GPU_TIER,
        remedy,
        optional=True,
    )
