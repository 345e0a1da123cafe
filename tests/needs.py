"""What a test needs that a machine may lack, and how to get it: the one home of reasons to skip.

A test skips through a `Need`; as a pytest plugin this module then sums all of them up in the last line of a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest


@dataclass(frozen=True)
class Need:
    """One thing that some tests need.

    Attributes:
        what: completes "needs …".
        remedy: a command, or where to find it.
    """

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"needs {self.what} ({self.remedy})"

    def skip(self) -> NoReturn:
        """Skip the running test."""
        pytest.skip(str(self))

    def module(self, name: str) -> Any:
        """The module of that name; skips the running test where it cannot be imported."""
        return pytest.importorskip(name, reason=str(self))

    def unless(self, there: object) -> pytest.MarkDecorator:
        """A mark that skips a test unless `there` is true."""
        return pytest.mark.skipif(not there, reason=str(self))


AMX = Need("AMX units", "on an Intel Xeon of the 4th generation or later")
AZURE_TRACE = Need("the Azure trace", "README, Data")
BUBBLEWRAP = Need("bubblewrap", "apt-get install bubblewrap")
BUBBLEWRAP_ALLOWED = Need("a machine that lets bubblewrap make namespaces", "docs/lab-machine.md")
CHROMIUM = Need("Chromium", "apt-get install chromium")
ESLINT = Need("eslint", "npm ci --prefix tests/eslint")
GPU = Need("an NVIDIA GPU", "pytest -m gpu on a machine that has one")
INTERPRETER = Need("Triton's interpreter", "TRITON_INTERPRET=1")
NO_GPU = Need("a machine without an NVIDIA GPU", "CUDA_VISIBLE_DEVICES= hides it")
PLAYWRIGHT = Need("Playwright", "pip install playwright")
PROVE = Need("time and a quiet machine", "make prove")
MOUNTS = Need("leave to mount a file system", "a machine or container that allows it")
ROOT = Need("root", "run as root")
SYSTEM_PYTHON = Need("a Python that another user can run", "apt-get install python3")
TRITON = Need("Triton", "make setup on Linux")
VLLM = Need("vLLM", "make vllm, or LESSONLIB_VLLM_PYTHON=/path/to/python")

TIERS = {"interpreter": INTERPRETER, "gpu": GPU}
# Marks that `make test` leaves out.
MARKS = {"gpu": GPU, "prove": PROVE}


def summary(reasons: Mapping[str, int]) -> str:
    """ "3 not checked here: 2 need Chromium (apt-get install chromium), 1 needs root (…)"; "" for nothing."""
    many = sorted(reasons.items(), key=lambda item: -item[1])
    parts = [f"{count:,} {reason if count == 1 else _plural(reason)}" for reason, count in many]
    return f"{sum(reasons.values()):,} not checked here: {', '.join(parts)}" if parts else ""


def _plural(reason: str) -> str:
    return f"need {reason.removeprefix('needs ')}" if reason.startswith("needs ") else reason


# ----- the plugin -----

LEFT_OUT = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = Counter()
    if config.pluginmanager.hasplugin("xdist") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Controller(config))


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count what `-m "not gpu and not prove"` left out; what another choice left out is the caller's own."""
    config = items[0].config
    for mark, need in MARKS.items():
        if f"not {mark}" in config.option.markexpr and not config.option.keyword:
            marked = [item for item in items if item.get_closest_marker(mark)]
            config.stash[LEFT_OUT] += Counter({str(need): len(marked)})
            items = [item for item in items if item not in marked]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["left_out"] = dict(session.config.stash[LEFT_OUT])


class _Controller:
    """Of a run over several workers. Each has collected all tests, so that any of them knows what was left out."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.config.stash[LEFT_OUT] |= Counter(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    reports = terminalreporter.stats.get("skipped", ())
    skipped = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
    if line := summary(skipped + config.stash[LEFT_OUT]):
        terminalreporter.write_line(line)
