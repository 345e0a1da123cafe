"""What an instructor may expect of `make nbval` when a notebook breaks."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).parents[1]
# Cells of notebooks, none of which has printed anything when it was stored.
CELLS = {
    "figures": ["print(3.7)", "assert True"],
    "wrong": ["assert 1 == 2"],
    "slow": ["import sys\nprint('weights: 3/10', file=sys.stderr)", "x = 1"],
    "both": ["import sys\nprint('1/10', file=sys.stderr)\nprint(3.7)"],
    "dies": ["x = 1", "import os\nos._exit(1)", "y = x"],
}
OUTCOME = re.compile(r"(\w+)(?:\.|::)ipynb::Cell \d+ (PASSED|FAILED)")
LIMIT = 600  # seconds, on a machine that is busy with other things too


def nbval(folder: Path, mode: str, *names: str) -> tuple[dict[str, list[str]], str]:
    """One run over these notebooks: the outcome of each one's cells, and all that was printed."""
    for name in names:
        cells = [new_code_cell(source, execution_count=at) for at, source in enumerate(CELLS[name], start=1)]
        nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", mode, "--nbval-current-env", "--nbval-cell-timeout=120", "-vv"]
    plugins = ["-p", "lessonlib.nbval_kernel", "-p", "no:cacheprovider"]
    paths = [str(folder / f"{name}.ipynb") for name in names]
    run = subprocess.run(
        [*command, *plugins, *paths], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT
    )
    assert run.returncode == 1, run.stdout
    found: dict[str, list[str]] = {name: [] for name in names}
    for name, outcome in OUTCOME.findall(run.stdout):
        found[name].append(outcome)
    return found, run.stdout


@pytest.fixture(scope="module")
def strict(tmp_path_factory) -> tuple[dict[str, list[str]], str]:
    return nbval(tmp_path_factory.mktemp("strict"), "--nbval", "figures", "wrong", "slow", "both")


def test_a_dead_kernel_is_reported_within_a_minute(tmp_path: Path) -> None:
    started = time.monotonic()
    found, said = nbval(tmp_path, "--nbval", "dies")
    assert time.monotonic() - started < 60
    assert found["dies"] == ["PASSED", "FAILED", "FAILED"]
    assert "the kernel died in this cell" in said
    assert "Kernel dead on test start" in said  # of the cell after it


def test_another_figure_and_a_wrong_assertion_fail(strict) -> None:
    found, _ = strict
    assert found["figures"] == ["FAILED", "PASSED"]
    assert found["wrong"] == ["FAILED"]


def test_lax_keeps_assertions_and_lets_figures_differ(tmp_path: Path) -> None:
    found, _ = nbval(tmp_path, "--nbval-lax", "figures", "wrong")
    assert found == {"figures": ["PASSED", "PASSED"], "wrong": ["FAILED"]}


def test_a_progress_bar_is_no_difference(strict) -> None:
    found, said = strict
    assert found["slow"] == ["PASSED", "PASSED"]
    assert found["both"] == ["FAILED"]
    assert "3.7" in said
