"""Points that an instructor gives by hand, and why: they outlast every run, and the student is told.

[ada]
"ex03.1" = 1
reason = "Shown to me in the lab."

["Babbage, Charles"]
score = 15
reason = "Two days late, by arrangement."
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lessonlib.errors import CourseError

OVERRIDES_FILE = "overrides.toml"  # a copy of the last one that was given
MOST_POINTS = 1e6


@dataclass(frozen=True)
class Override:
    """One student's.

    Attributes:
        tasks: task id → its points.
        score: the points of everything, instead of the tasks' sum; None for these.
        reason: what the student is told.
    """

    tasks: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None
    reason: str = ""

    @property
    def sentence(self) -> str:
        """For the student's page."""
        given = [f"{points:g} for {task}" for task, points in self.tasks.items()]
        given += [f"{self.score:g} in all"] if self.score is not None else []
        return f"Points given by hand: {', '.join(given)}. {self.reason}".strip()


def read_overrides(path: Path, tasks: Mapping[str, float]) -> dict[str, Override]:
    """Student → what they are given; `tasks` are the ids there are.

    Raises `CourseError` for a file that is not TOML, an unknown task, or points that are no number from 0 up.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CourseError(f"cannot read the overrides {path}: {error}") from error
    return {student: _override(path, student, table, tasks) for student, table in given.items()}


def _override(path: Path, student: str, table: object, tasks: Mapping[str, float]) -> Override:
    if not isinstance(table, dict):
        raise CourseError(
            f'{path} gives {student} no table: write ["{student}"] above the lines of a student'
        )
    points: dict[str, float] = {}
    for name, value in table.items():
        if name == "reason" and isinstance(value, str):
            continue
        if name != "score" and name not in tasks:
            raise CourseError(
                f"{path} gives {student} a {name!r}: there is score, reason, {', '.join(tasks)}"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MOST_POINTS:
            raise CourseError(f"{path} gives {student} {value!r} points for {name}: give a number from 0 up")
        points[name] = float(value)
    return Override(points, points.pop("score", None), table.get("reason", ""))
