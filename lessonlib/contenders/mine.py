"""The capstone: the course's engine with every part in it that a student's own file passes."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from lessonlib.checks.report import Report
from lessonlib.checks.runner import EXERCISES, check
from lessonlib.errors import CourseError
from lessonlib.layout import find_folder

EXERCISE = "ex03"
SEATS = ("ex03.1", "ex03.2", "ex03.3")  # tasks that have a seat in the scheduler


class Own(NamedTuple):
    """What of a student's file rides along.

    Attributes:
        path: the file.
        functions: those that passed, by name.
        words: a line for each seat: whose part sits there, and why.
    """

    path: str
    functions: list[str]
    words: list[str]


def inspect(folder: str | Path) -> Own:
    """Check the student's file, shut in as always; only what passed will be loaded into the engine's process.

    Raises `CourseError` where there is no such file.
    """
    path = find_folder(folder) / f"{EXERCISE}.py"
    if not path.is_file():
        raise CourseError(f"no {path.name} in {path.parent}: write it, or name another folder with --from")
    report = check(*SEATS, folder=path.parent)
    passed = [task for task in SEATS if _is_passed(report, task)]
    tasks = {task.id: task for task in EXERCISES[EXERCISE].tasks}
    functions = [name for task in passed for name in tasks[task].functions]
    words = [
        f"{task} {tasks[task].title}: "
        + ("yours" if task in passed else f"the course's ({_why(report, task)})")
        for task in SEATS
    ]
    return Own(str(path), functions, words)


def load(path: str, functions: Sequence[str]) -> SimpleNamespace:
    """The named functions of a file."""
    spec = importlib.util.spec_from_file_location("mine", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return SimpleNamespace(**{name: getattr(module, name) for name in functions})


def _is_passed(report: Report, task: str) -> bool:
    found = [result for result in report.results if result.id == task]
    return bool(found) and all(result.status == "passed" for result in found)


def _why(report: Report, task: str) -> str:
    result = next(result for result in report.results if result.id == task and result.status != "passed")
    return f"{result.status}: {result.property_name}" if result.property_name else result.status
