"""What an instructor may expect of `make nbval` when a notebook breaks."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).parents[1]


def nbval(path: Path, *cells: str, mode: str = "--nbval") -> subprocess.CompletedProcess:
    """A run over a notebook of these cells, none of which has printed anything when it was stored."""
    stored = [new_code_cell(source, execution_count=place) for place, source in enumerate(cells, start=1)]
    nbformat.write(new_notebook(cells=stored), path)
    command = [sys.executable, "-m", "pytest", mode, "--nbval-current-env", "--nbval-cell-timeout=120"]
    plugins = ["-p", "lessonlib.nbval_kernel", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *plugins, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_a_dead_kernel_is_reported_within_a_minute(tmp_path: Path) -> None:
    started = time.monotonic()
    run = nbval(tmp_path / "dies.ipynb", "x = 1", "import os\nos._exit(1)", "y = x")
    assert time.monotonic() - started < 60
    assert run.returncode == 1
    assert "the kernel died in this cell" in run.stdout
    assert "Kernel dead on test start" in run.stdout  # of the cell after it
    assert "2 failed, 1 passed" in run.stdout


@pytest.mark.parametrize(("mode", "failed"), [("--nbval", 1), ("--nbval-lax", 0)])
def test_lax_keeps_assertions_and_lets_figures_differ(mode: str, failed: int, tmp_path: Path) -> None:
    run = nbval(tmp_path / "figures.ipynb", "print(3.7)", "assert True", mode=mode)
    assert run.returncode == failed, run.stdout
    wrong = nbval(tmp_path / "wrong.ipynb", "assert 1 == 2", mode=mode)
    assert wrong.returncode == 1


def test_a_progress_bar_is_no_difference(tmp_path: Path) -> None:
    run = nbval(tmp_path / "slow.ipynb", "import sys\nprint('weights: 3/10', file=sys.stderr)", "x = 1")
    assert run.returncode == 0, run.stdout
    both = nbval(tmp_path / "both.ipynb", "import sys\nprint('1/10', file=sys.stderr)\nprint(3.7)")
    assert both.returncode == 1
    assert "3.7" in both.stdout
