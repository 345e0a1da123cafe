"""The notebooks under nbval, many times in a row: is the verdict on every cell the same each time?

    python -m benchmarks.nbval_runs [--runs 20] [--lax] [--out FOLDER] [NOTEBOOK ...]

A run is what `make nbval` runs. Exit code 0 where all runs agree, 1 where two of them do not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

from tqdm import tqdm

from benchmarks.record import record

NOTEBOOKS = sorted(str(path) for path in Path("notebooks").glob("*.ipynb"))
PYTEST = (
    "--nbval-current-env",
    "--nbval-cell-timeout=120",
    "-p",
    "lessonlib.nbval_kernel",
    "-p",
    "no:cacheprovider",
)
RUN_SECONDS = 1_800


def verdicts(notebooks: list[str], mode: str) -> dict[str, str]:
    """Cell → "passed", "failure", "error" or "skipped", of one run; prints why a cell did not pass."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "nbval.xml")
        command = [sys.executable, "-m", "pytest", mode, *PYTEST, f"--junitxml={file}", *notebooks]
        subprocess.run(command, stdout=subprocess.DEVNULL, timeout=RUN_SECONDS, check=False)
        cases = ElementTree.parse(file).getroot().iter("testcase")
        return dict(map(_verdict, cases))


def _verdict(case: ElementTree.Element) -> tuple[str, str]:
    cell = f"{case.get('classname')} {case.get('name')}"
    mark = next((mark for mark in case if mark.tag in ("failure", "error", "skipped")), None)
    if mark is None:
        return cell, "passed"
    tqdm.write(f"{cell}: {mark.tag}\n{mark.text or mark.get('message')}")
    return cell, mark.tag


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", default=NOTEBOOKS)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--lax", action="store_true", help="as on a GPU machine")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    mode = "--nbval-lax" if options.lax else "--nbval"
    runs, seconds = [], []
    for _ in tqdm(range(options.runs), unit="run", disable=None):
        started = time.monotonic()
        runs.append(verdicts(options.notebooks, mode))
        seconds.append(round(time.monotonic() - started, 1))
    changing = sorted({cell for run in runs for cell in run | runs[0] if run.get(cell) != runs[0].get(cell)})
    result = {
        "mode": mode,
        "notebooks": options.notebooks,
        "runs": len(runs),
        "cells": len(runs[0]),
        "not_passed": {cell: verdict for cell, verdict in runs[0].items() if verdict != "passed"},
        "changing": changing,
        "seconds": seconds,
    }
    print(f"{len(runs)} runs of {len(runs[0])} cells: {len(changing)} cells changed their verdict")
    if options.out:
        name = "nbval_runs_lax" if options.lax else "nbval_runs"
        record(name, result, options.out, "nbval", "pytest", "ipykernel")
    return 1 if changing or not runs[0] else 0


if __name__ == "__main__":
    sys.exit(main())
