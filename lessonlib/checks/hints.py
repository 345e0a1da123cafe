"""Hints to a task, one at a time: from a nudge to nearly the answer. Shown when they are asked for."""

from __future__ import annotations

from lessonlib.checks.runner import EXERCISES
from lessonlib.errors import CourseError


def hint(task_id: str, number: int = 1) -> str:
    """A task's hint of that number, from 1. Raises `CourseError` for an unknown task or number."""
    hints = {task.id: task.hints for exercise in EXERCISES.values() for task in exercise.tasks if task.hints}
    if task_id not in hints:
        raise CourseError(f"no hints for {task_id!r}: there are some for {', '.join(hints)}")
    if not 1 <= number <= len(hints[task_id]):
        raise CourseError(f"no hint {number} for {task_id}: give 1 to {len(hints[task_id])}")
    more = f"\n(hint {number} of {len(hints[task_id])})"
    return hints[task_id][number - 1] + more
