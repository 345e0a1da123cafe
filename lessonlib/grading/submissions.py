"""What one student handed in: which of their files answers which exercise, and what is wrong with it."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from lessonlib.checks import EXERCISES
from lessonlib.grading.archives import Entry, Inventory, Top, Unreadable, describe, read_from
from lessonlib.grading.cells import functions_files
from lessonlib.grading.layouts import Handin

MAX_SOURCE = 1 << 20  # bytes of one Python file
MAX_NOTEBOOK = 64 << 20  # bytes of one notebook, its outputs included
ANSWERS = "exercises"  # the folder that the course itself has them in
LISTED = 5  # files that are named where none is wanted
SOURCE, NOTEBOOK = ".py", ".ipynb"
# A name that is meant for one of an exercise: "Copy of EX01.py", "ex1 (2).py", "03_mine.ipynb", "ex04-kernel.py.txt".
MEANT = re.compile(
    r"(?:copy of |copie de |kopie von )*(?:ex(?:ercise)?)?[ _-]?0?(?P<number>[1-9])(?!\d)"
    r"(?P<kernel>[ _.-]?kernel)?(?P<rest>[^a-z0-9].*)?"
)
COPY = re.compile(r"[(_ -](\d+)\)?$")  # the number of a copy at the end of a name
ENDINGS = {
    ".py": SOURCE,
    ".py.txt": SOURCE,
    ".ipynb": NOTEBOOK,
    ".ipynb.txt": NOTEBOOK,
    ".ipynb.json": NOTEBOOK,
}


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


# ----- reading -----


def read(
    source: Path,
    handin: Handin,
    wanted: Sequence[str],
    on_file: Callable[[str], None] = lambda path: None,
    refused: Mapping[str, str] | None = None,
) -> Submission:
    """What a student handed in for the exercises `wanted`. Never raises: a submission can have a problem.

    Args:
        source: the class's folder or zip.
        on_file: gets the path of each file before it is looked into.
        refused: path → why that file is not to be looked into.
    """
    if handin.problem:
        return Submission(handin.student, problem=handin.problem)
    try:
        with Top(source) as top, ExitStack() as opened:
            return _read(top, handin, wanted, Inventory(opened, on_file, refused or {}))
    except Unreadable as reason:
        return Submission(handin.student, problem=str(reason))
    except Exception as error:  # whatever it was, the next student is still read
        return Submission(handin.student, problem=f"It cannot be read ({describe(error)}).")


def _read(top: Top, handin: Handin, wanted: Sequence[str], inventory: Inventory) -> Submission:
    entries = [
        entry
        for part in handin.parts
        for entry in top.files(part.source, PurePosixPath(part.path), inventory)
        if _ending(entry.path.name)
    ]
    answers = _Answers(entries, inventory)
    for exercise in wanted:
        answers.take_file(exercise)
    for name in _notebooks(entries, answers.missing(wanted)):
        answers.take_notebook(name, answers.missing(wanted))
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


def _nothing(wanted: Sequence[str], entries: Sequence[Entry], notes: Sequence[str]) -> str:
    names = ", ".join(f"{name}.py" for name in wanted)
    there = ", ".join(sorted(str(entry.path) for entry in entries)[:LISTED]) or "no file"
    return " ".join(
        [f"There is none of {names}, and no notebook with their functions. It has {there}.", *notes]
    )


class _Answers:
    """What was taken for each exercise, so far."""

    def __init__(self, entries: Sequence[Entry], inventory: Inventory) -> None:
        self.files: dict[str, bytes] = {}
        self.unreadable: dict[str, str] = {}
        self.taken: list[Entry] = []
        self._entries, self._inventory = entries, inventory

    def missing(self, wanted: Sequence[str]) -> list[str]:
        """Exercises without a file that can be graded."""
        return [name for name in wanted if name not in self.files]

    def take_file(self, exercise: str) -> None:
        """The exercise's Python file, or what is wrong with it."""
        try:
            entry = self._file(exercise)
            if entry is not None:
                self.files[exercise] = _text(entry, MAX_SOURCE, self._inventory)
                self.taken.append(entry)
        except Unreadable as reason:
            self.unreadable[exercise] = str(reason)
        else:
            left_out = self._inventory.left_out.items()
            reasons = [reason for path, reason in left_out if path.name == f"{exercise}{SOURCE}"]
            if entry is None and reasons:
                self.unreadable[exercise] = reasons[0]

    def _file(self, exercise: str) -> Entry | None:
        """The file of just this name; else the newest of those whose names are meant for it, which is noted."""
        name = f"{exercise}{SOURCE}"
        meant = [each for each in self._entries if _meant(each.path.name) == (exercise, SOURCE)]
        others = [str(each.path) for each in meant if each.path.name != name]
        if (entry := _chosen(self._entries, name)) is not None:
            if others:
                self._inventory.notes.append(
                    f"{entry.path} was taken, and not {' or '.join(sorted(others))}."
                )
        elif meant:
            entry = _newest_of(meant, name)
            among = f", the newest of {len(meant)}" if len(meant) > 1 else ""
            self._inventory.notes.append(f"There is no {name}: {entry.path} was taken{among}.")
        return entry

    def take_notebook(self, name: str, exercises: Sequence[str]) -> None:
        """The exercises that the notebook of this name answers, or what is wrong with it."""
        try:
            entry = _chosen(self._entries, name)
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
    """The notebooks whose names begin with an exercise's id or its number, the newest copy first.

    Of copies, the first that has an exercise's functions is the one that is taken.
    """
    numbers = {exercise[2:4] for exercise in missing}
    newest: dict[str, tuple[float, int]] = {}
    for entry in entries:
        if _ending(entry.path.name) == NOTEBOOK and _number(entry.path.name) in numbers:
            newest[entry.path.name] = max(newest.get(entry.path.name, (0.0, 0)), _age(entry))
    return sorted(newest, key=lambda name: (-newest[name][0], -newest[name][1], name))


# ----- names that are meant for an exercise -----


def _ending(name: str) -> str:
    """SOURCE or NOTEBOOK, or "" for a file of another kind."""
    found = (kind for ending, kind in ENDINGS.items() if name.lower().endswith(ending))
    return next(found, "")


def _meant(name: str) -> tuple[str, str]:
    """(the exercise that a file's name is meant for, SOURCE or NOTEBOOK); ("", "") where there is none."""
    kind = _ending(name)
    stem = _stem(name)
    form = MEANT.fullmatch(stem) if kind else None
    if form is None or (kind == SOURCE and stem[:1] == form["number"]):  # 1.py says too little
        return "", ""
    exercise = f"ex0{form['number']}{'_kernel' if form['kernel'] else ''}"
    return (exercise, kind) if exercise in EXERCISES else ("", "")


def _number(name: str) -> str:
    """The two digits of the exercise that a notebook's name is meant for."""
    return _meant(name)[0][2:4]


def _stem(name: str) -> str:
    """In small letters, without its ending."""
    text = unicodedata.normalize("NFKC", name).lower().strip()
    ending = max((each for each in ENDINGS if text.endswith(each)), key=len, default="")
    return text[: len(text) - len(ending)].strip()


def _age(entry: Entry) -> tuple[float, int]:
    """What the newest of several has most of: when it was changed, then the number of the copy."""
    copy = COPY.search(_stem(entry.path.name))
    return entry.changed, int(copy[1]) if copy else 0


def _newest_of(entries: Sequence[Entry], name: str) -> Entry:
    """Raises `Unreadable` where two are as new."""
    newest = max(entries, key=_age)
    alike = sorted(str(each.path) for each in entries if _age(each) == _age(newest))
    if len(alike) > 1:
        raise Unreadable(f"There is no {name}, but {' and '.join(alike)}, which are as new: none was taken.")
    return newest
