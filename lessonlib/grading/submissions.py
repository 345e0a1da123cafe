"""What students handed in: whose it is, which of their files answers which exercise, and what is wrong with it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from lessonlib.checks import EXERCISES
from lessonlib.checks.cleaning import clean
from lessonlib.errors import CourseError
from lessonlib.grading.archives import (
    NOT_ANSWERS,
    Entry,
    Inventory,
    Unreadable,
    describe,
    files_at,
    is_archive,
    read_from,
    without_ending,
)
from lessonlib.grading.cells import functions_files
from lessonlib.grading.names import shown_name

MAX_SOURCE = 1 << 20  # bytes of one Python file
MAX_NOTEBOOK = 64 << 20  # bytes of one notebook, its outputs included
ANSWERS = "exercises"  # the folder that the course itself has them in
FORMULA = ("=", "+", "-", "@")  # what makes a spreadsheet take a cell for a formula
LISTED = 5  # files that are named where none is wanted


@dataclass(frozen=True)
class Part:
    """A file, a folder or an archive in the class's folder that is part of a submission.

    Attributes:
        source: its name there.
        path: what it is called in the submission; "." where it is the whole of it.
    """

    source: str
    path: str = "."


@dataclass(frozen=True)
class Handin:
    """One student's parts of the class's folder; `problem` says why they cannot be graded, or is ""."""

    student: str
    parts: tuple[Part, ...]
    problem: str = ""


@dataclass(frozen=True)
class Submission:
    """What one student handed in.

    Attributes:
        student: the name that their records have.
        files: exercise id → the text of its file, as bytes.
        unreadable: exercise id → what is wrong with its file, where there is one that cannot be graded.
        notes: what else was left out, or taken from a notebook, a sentence each.
        submitted: when the newest of the files was last changed, in UTC.
        problem: why nothing of it can be graded, or "".
    """

    student: str
    files: dict[str, bytes] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    submitted: str = ""
    problem: str = ""

    @property
    def digest(self) -> str:
        """The same for the same files with the same problems."""
        whole = hashlib.sha256(self.problem.encode())
        texts = [*self.files.items(), *((name, text.encode()) for name, text in self.unreadable.items())]
        for name, text in sorted(texts):
            whole.update(f"\0{name}\0{len(text)}\0".encode() + text)
        return whole.hexdigest()


# ----- whose it is -----


def find(folder: Path) -> tuple[list[Handin], list[str]]:
    """(what each student handed in, what lies beside it and is left out), in order of name.

    Raises `CourseError` where there is nothing to grade.
    """
    if not folder.is_dir():
        raise CourseError(f"no folder {folder}: give the one that holds a folder or a zip for each student")
    parts: dict[str, list[Part]] = {}
    left_out = []
    for name in sorted(os.listdir(folder)):
        if name.startswith(".") or name in NOT_ANSWERS:
            continue
        if (reason := _not_a_submission(folder / name)) is not None:
            left_out.append(f"{clean(name)}: {reason}")
        else:
            student = shown_name(without_ending(name) if is_archive(name) else name)
            parts.setdefault(student, []).append(Part(name))
    if not parts:
        named = f" ({'; '.join(left_out)})" if left_out else ""
        raise CourseError(
            f"no submission in {clean(str(folder))}{named}: it should hold a folder or a zip for each student"
        )
    return [_handin(student, parts[student]) for student in sorted(parts)], left_out


def _not_a_submission(path: Path) -> str | None:
    """Why a file of the class's folder belongs to no student; None where it does."""
    if path.is_symlink():
        return "a link is not followed"
    if not path.is_dir() and not is_archive(path.name):
        return "neither a folder nor a zip"
    if path.name.startswith(FORMULA):
        return f"a name that begins with {path.name[0]} is a formula to a spreadsheet: rename it"
    return None


def _handin(student: str, parts: Sequence[Part]) -> Handin:
    if len(parts) == 1:
        return Handin(student, tuple(parts))
    names = " and ".join(clean(part.source) for part in parts)
    return Handin(
        student, tuple(parts), f"{student} is here more than once: {names}. Leave one of them there."
    )


# ----- reading -----


def read(
    folder: Path,
    handin: Handin,
    wanted: Sequence[str],
    on_file: Callable[[str], None] = lambda path: None,
    refused: Mapping[str, str] | None = None,
) -> Submission:
    """What a student handed in for the exercises `wanted`. Never raises: a submission can have a problem.

    Args:
        folder: the class's.
        on_file: gets the path of each file before it is looked into.
        refused: path → why that file is not to be looked into.
    """
    if handin.problem:
        return Submission(handin.student, problem=handin.problem)
    try:
        with ExitStack() as opened:
            inventory = Inventory(opened, on_file, refused or {})
            return _read(folder, handin, wanted, inventory)
    except Unreadable as reason:
        return Submission(handin.student, problem=str(reason))
    except Exception as error:  # whatever it was, the next student is still read
        return Submission(handin.student, problem=f"It cannot be read ({describe(error)}).")


def _read(folder: Path, handin: Handin, wanted: Sequence[str], inventory: Inventory) -> Submission:
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    inventory.opened.callback(os.close, top)
    entries = [entry for part in handin.parts for entry in _entries(top, part, inventory)]
    answers = _Answers(inventory)
    for exercise in wanted:
        answers.take_file(exercise, entries)
    for name in _notebooks(entries, answers.missing(wanted)):
        answers.take_notebook(name, entries, answers.missing(wanted))
    problems = set(answers.unreadable.values())
    notes = [*(each for each in inventory.left_out.values() if each not in problems), *inventory.notes]
    if not answers.files and not answers.unreadable:
        raise Unreadable(_nothing(wanted, entries, notes))
    return Submission(
        handin.student, answers.files, answers.unreadable, tuple(dict.fromkeys(notes)), _newest(answers.taken)
    )


def _newest(entries: Sequence[Entry]) -> str:
    """When the newest of them was changed; "" where that is not known."""
    changed = max((entry.changed for entry in entries), default=0.0)
    try:
        return datetime.fromtimestamp(changed, UTC).isoformat(timespec="seconds") if changed else ""
    except (ValueError, OverflowError, OSError):  # a tar can claim any
        return ""


def _entries(top: int, part: Part, inventory: Inventory) -> Iterator[Entry]:
    """Files that could be answers."""
    for entry in files_at(top, part.source, PurePosixPath(part.path), inventory):
        if entry.path.suffix in (".py", ".ipynb"):
            yield entry


def _nothing(wanted: Sequence[str], entries: Sequence[Entry], notes: Sequence[str]) -> str:
    names = ", ".join(f"{name}.py" for name in wanted)
    there = ", ".join(sorted(str(entry.path) for entry in entries)[:LISTED]) or "no file"
    return " ".join(
        [f"There is none of {names}, and no notebook with their functions. It has {there}.", *notes]
    )


class _Answers:
    """What was taken for each exercise, so far."""

    def __init__(self, inventory: Inventory) -> None:
        self.files: dict[str, bytes] = {}
        self.unreadable: dict[str, str] = {}
        self.taken: list[Entry] = []
        self._inventory = inventory

    def missing(self, wanted: Sequence[str]) -> list[str]:
        """Exercises without a file that can be graded."""
        return [name for name in wanted if name not in self.files]

    def take_file(self, exercise: str, entries: Sequence[Entry]) -> None:
        """The exercise's Python file, or what is wrong with it."""
        try:
            entry = _chosen(entries, f"{exercise}.py")
            if entry is not None:
                self.files[exercise] = _text(entry, MAX_SOURCE, self._inventory)
                self.taken.append(entry)
        except Unreadable as reason:
            self.unreadable[exercise] = str(reason)
        else:
            left_out = self._inventory.left_out.items()
            reasons = [reason for path, reason in left_out if path.name == f"{exercise}.py"]
            if entry is None and reasons:
                self.unreadable[exercise] = reasons[0]

    def take_notebook(self, name: str, entries: Sequence[Entry], exercises: Sequence[str]) -> None:
        """The exercises that the notebook of this name answers, or what is wrong with it."""
        try:
            entry = _chosen(entries, name)
            assert entry is not None
            made = _functions_files(entry, exercises, self._inventory)
        except Unreadable as reason:
            for exercise in exercises:
                if exercise[2:4] == _number(name):
                    self.unreadable.setdefault(exercise, str(reason))
            return
        for exercise, text in made.items():
            self.files[exercise] = text
            self.unreadable.pop(exercise, None)
            self.taken.append(entry)
            self._inventory.notes.append(f"{exercise}.py was taken from {entry.path}.")


def _functions_files(entry: Entry, exercises: Sequence[str], inventory: Inventory) -> dict[str, bytes]:
    """What a notebook has for these exercises, as files. Raises `Unreadable` for what is no notebook."""
    text = _text(entry, MAX_NOTEBOOK, inventory)
    try:
        made = functions_files(text, [EXERCISES[name] for name in exercises])
    except ValueError as reason:
        raise Unreadable(f"{entry.path} cannot be used: {reason}.") from reason
    return {name: source.encode("utf-8", "replace") for name, source in made.items()}


def _text(entry: Entry, most: int, inventory: Inventory) -> bytes:
    text = read_from(entry, most, inventory)
    if not text.strip():
        raise Unreadable(f"{entry.path} is empty.")
    return text


# ----- which file is meant -----


def _chosen(entries: Sequence[Entry], name: str) -> Entry | None:
    """The file of this name: the one in `exercises/`, else the one nearest to the top.

    Raises `Unreadable` where two are as near.
    """
    found = [entry for entry in entries if entry.path.name == name]
    if not found:
        return None
    rank = {id(entry): (ANSWERS not in entry.path.parts, len(entry.path.parts)) for entry in found}
    nearest = [entry for entry in found if rank[id(entry)] == min(rank.values())]
    if len(nearest) > 1:
        paths = " and ".join(sorted(str(entry.path) for entry in nearest))
        raise Unreadable(f"{name} is there more than once ({paths}): neither was taken.")
    return nearest[0]


def _notebooks(entries: Sequence[Entry], missing: Sequence[str]) -> list[str]:
    """The notebooks whose names begin with an exercise's id or its number, `ex03_mine.ipynb`, `03_the_….ipynb`."""
    numbers = {exercise[2:4] for exercise in missing}
    names = {entry.path.name for entry in entries if entry.path.suffix == ".ipynb"}
    return sorted(name for name in names if _number(name) in numbers)


def _number(name: str) -> str:
    """The two digits of the exercise that a file's name begins with."""
    return name.removeprefix("ex")[:2]
