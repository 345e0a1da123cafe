"""A pytest plugin beside nbval, for three things that nbval by itself gets wrong.

A kernel that died is said at once, with the cell that it died in; nbval waits until the cell's time is up. What goes to
stderr is not compared: a progress bar shows only where a machine is slow, and says nothing of the answer. And a cell
that this machine could not run (see `unrun`) is skipped with the reason, neither passed nor failed.

python -m pytest --nbval -p lessonlib.nbval_kernel notebooks/*.ipynb
"""

from __future__ import annotations

import time
from queue import Empty
from typing import Any

import pytest
from nbval import plugin
from nbval.kernel import RunningKernel

from lessonlib.unrun import reason

LOOK_EVERY = 1.0  # seconds


class KernelDiedError(RuntimeError):
    """The process behind the notebook is gone."""


class WatchedKernel(RunningKernel):
    """nbval's kernel, looked at while it is waited for."""

    def get_message(self, stream: str, timeout: float | None = None) -> Any:
        """The next message. Raises `Empty` after `timeout` seconds, `KernelDiedError` where none can come any more."""
        started = time.monotonic()
        while True:
            left = LOOK_EVERY if timeout is None else timeout - (time.monotonic() - started)
            try:
                return super().get_message(stream, timeout=min(LOOK_EVERY, max(0.0, left)))
            except Empty:
                if not self.is_alive():
                    raise KernelDiedError("the kernel died in this cell: out of memory, or a crash") from None
                if timeout is not None and left <= 0:
                    raise


def compared(outputs: list[Any]) -> list[Any]:
    """A cell's outputs as nbval compares them, stderr left out."""
    return _compared([out for out in outputs if out.get("name") != "stderr"])


def run_or_skip(cell: plugin.IPyNbCell) -> None:
    """Run a cell and compare it; skip it where it says that it was not run."""
    try:
        _run(cell)
    finally:
        if why := reason(cell.test_outputs or ()):
            pytest.skip(f"not checked here: {why}")


_compared, _run = plugin.transform_streams_for_comparison, plugin.IPyNbCell.runtest


def pytest_configure() -> None:
    """Have nbval start kernels of this kind, and run and compare cells this way."""
    plugin.RunningKernel = WatchedKernel
    plugin.transform_streams_for_comparison = compared
    plugin.IPyNbCell.runtest = run_or_skip
