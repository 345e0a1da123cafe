"""What helps with a task: one of its hints, or the worked answer."""

from __future__ import annotations

from pathlib import Path

from lessonlib.checks.runner import EXERCISES
from lessonlib.errors import CourseError
from lessonlib.layout import SOLUTIONS, find_folder, source
from lessonlib.regions import functions_of


def hint(task: str, number: int = 1) -> str:
    """Hint 1 nudges, 3 nearly gives it away.

    Raises `CourseError` for an unknown task or another number.
    """
    hints = {each.id: each.hints for exercise in EXERCISES.values() for each in exercise.tasks}
    if task not in hints:
        there = [each for each in hints if each.startswith(f"{task}.")] or hints
        raise CourseError(f"no hints for {task!r}: there are some for {', '.join(there)}")
    if number not in (1, 2, 3):
        raise CourseError(f"no hint {number} for {task}: give 1 to 3")
    return f"{hints[task][number - 1]}\n(hint {number} of 3)"


def solution(task: str, folder: str | Path = SOLUTIONS) -> str:
    """The worked answer of one task: its functions as they stand in `folder`, or in what the course came with.

    Raises `CourseError` for an unknown task, or where the folder is not there (an instructor may keep it back).
    """
    for exercise in EXERCISES.values():
        for each in exercise.tasks:
            if each.id == task:
                path = _worked(folder, f"{exercise.id}.py")
                return functions_of(path.read_text(encoding="utf-8"), task)
    known = ", ".join(each.id for exercise in EXERCISES.values() for each in exercise.tasks)
    raise CourseError(f"unknown task {task!r}: there is {known}")


def _worked(folder: str | Path, name: str) -> Path:
    """Raises `CourseError` where there is no such file in the folder, nor in what the course came with."""
    try:
        found = find_folder(folder) / name
    except CourseError:
        found = source() / folder / name
    if not found.is_file():
        raise CourseError(f"no worked answer at {Path(folder, name)}: ask whoever teaches the course")
    return found
