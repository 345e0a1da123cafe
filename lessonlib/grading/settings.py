"""What a class is graded by, what stays the same when a run goes on, and the folder that holds its results."""

from __future__ import annotations

import json
import secrets
import tomllib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from lessonlib import __version__
from lessonlib.checks import EXERCISES
from lessonlib.checks.runner import select
from lessonlib.errors import CourseError
from lessonlib.files import write_whole
from lessonlib.grading.records import STUDENTS

SECRET_BITS = 128
RUN_FILE = "run.json"  # what the results in a folder were made with
LOCK_FILE = ".lock"


@dataclass(frozen=True)
class Settings:
    """What all of a class is graded by, and what stays the same when a run goes on.

    Attributes:
        tasks: ids of exercises or tasks; none for everything there is.
        seed: the class's secret, from which each student's inputs are drawn; a fresh one unless given.
        weights: a TOML file, task id = points; 1 for each task that is not in it.
        assignment: its name in the tables.
    """

    tasks: tuple[str, ...] = ()
    seed: int | None = None
    weights: Path | None = None
    assignment: str = "continuous-batching"


class Results:
    """The folder with a run's results, for one run at a time. Use as a context manager.

    Attributes:
        out: the folder.
        run: {"course", "tasks", "weights", "seed"}, of the run that this one goes on with, if it does.

    Raises `CourseError` where the folder holds another run, or is in use by one.
    """

    def __init__(self, out: Path, settings: Settings, resume: bool) -> None:
        self.out = out
        self._settings, self._resume = settings, resume
        self._locked = ExitStack()
        self._is_locked = False

    def __enter__(self) -> Self:
        try:
            if self.out.is_dir():
                self._lock()
            self.run = self._settle()
        except BaseException:
            self._locked.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._locked.close()

    def make(self) -> None:
        """Make the folder, with what the run is made with. Raises `CourseError` where it cannot be."""
        try:
            self.out.mkdir(mode=0o700, parents=True, exist_ok=True)  # grades are nobody else's business
            (self.out / STUDENTS).mkdir(exist_ok=True)
        except OSError as error:
            raise CourseError(
                f"cannot write to {self.out}: {error.strerror}; choose another --out"
            ) from error
        self._lock()
        if _read_run(self.out) not in ({}, self.run):
            raise CourseError(
                f"another run has begun in {self.out}: go on with --resume, or choose another --out"
            )
        write_whole(self.out / RUN_FILE, json.dumps(self.run, indent=1) + "\n")

    def _lock(self) -> None:
        if self._is_locked:
            return
        try:
            self._locked.enter_context(FileLock(self.out / LOCK_FILE, timeout=0))
        except Timeout as error:
            raise CourseError(
                f"another run is grading into {self.out}: wait for it, or choose another --out"
            ) from error
        except OSError as error:
            raise CourseError(
                f"cannot write to {self.out}: {error.strerror}; choose another --out"
            ) from error
        self._is_locked = True

    def _settle(self) -> dict[str, Any]:
        before = _read_run(self.out)
        if before and not self._resume:
            raise CourseError(f"{self.out} holds results: go on with --resume, or choose another --out")
        seed = self._settings.seed
        given: dict[str, Any] = {
            "course": __version__,
            "tasks": [task.id for tasks in select(self._settings.tasks).values() for task in tasks],
            "weights": _weights(self._settings.weights),
        }
        if not before:
            return {**given, "seed": secrets.randbits(SECRET_BITS) if seed is None else seed}
        if seed is not None:
            given["seed"] = seed
        for name, value in given.items():
            if before[name] != value:
                raise CourseError(
                    f"{self.out} was begun with {name} {_short(before[name])}, not {_short(value)}: "
                    "say the same, or choose another --out"
                )
        return before


def _read_run(out: Path) -> dict[str, Any]:
    """What an earlier run was made with, or {} where there was none."""
    path = out / RUN_FILE
    if not path.is_file():
        return {}
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        return {name: before[name] for name in ("course", "tasks", "weights", "seed")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CourseError(f"cannot read {path} ({error}): choose another --out") from error


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _weights(path: Path | None) -> dict[str, float]:
    """Task id → points, for every task there is.

    Raises `CourseError` for a file that is not TOML, an unknown task, or points that are no number from 0 up.
    """
    weights = {task.id: 1.0 for exercise in EXERCISES.values() for task in exercise.tasks}
    if path is None:
        return weights
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CourseError(
            f'cannot read the weights {path}: {error}; write lines such as "ex03.1" = 2'
        ) from error
    for name, value in given.items():
        if name not in weights:
            raise CourseError(f"{path} has no task's id {name!r}: there is {', '.join(weights)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
            raise CourseError(f"{path} gives {name} {value!r} points: give a number from 0 up")
        weights[name] = float(value)
    return weights
