"""The capstone: which functions of a student's file go into the course's engine, as the contender "mine"."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lessonlib.checks.report import Report
from lessonlib.checks.runner import EXERCISES, check
from lessonlib.errors import CourseError
from lessonlib.layout import find_folder

EXERCISE = "ex03"
TASKS = ("ex03.1", "ex03.2", "ex03.3")  # those whose functions the scheduler can call


class OwnParts(NamedTuple):
    """What the engine takes from a student's file.

    Attributes:
        path: the file.
        functions: names of those that passed their checks.
        lines: a text for each task: whether the student's functions are used, and if not, why.
    """

    path: str
    functions: list[str]
    lines: list[str]


def check_own_parts(folder: str | Path) -> OwnParts:
    """Check the student's file in the sandbox. Only functions that pass are later loaded into the engine's process.

    Raises `CourseError` if the file is missing.
    """
    path = find_folder(folder) / f"{EXERCISE}.py"
    if not path.is_file():
        raise CourseError(f"no {path.name} in {path.parent}: write it, or name another folder with --from")
    report = check(*TASKS, folder=path.parent)
    passed = [task for task in TASKS if _is_passed(report, task)]
    tasks = {task.id: task for task in EXERCISES[EXERCISE].tasks}
    functions = [name for task in passed for name in tasks[task].functions]
    lines = [
        f"{task} {tasks[task].title}: "
        + ("yours" if task in passed else f"the course's ({_why(report, task)})")
        for task in TASKS
    ]
    return OwnParts(str(path), functions, lines)


def _is_passed(report: Report, task: str) -> bool:
    found = [result for result in report.results if result.id == task]
    return bool(found) and all(result.status == "passed" for result in found)


def _why(report: Report, task: str) -> str:
    result = next(result for result in report.results if result.id == task and result.status != "passed")
    return f"{result.status}: {result.property_name}" if result.property_name else result.status
