"""Reads what students handed in: a folder or a zip each, with files or notebooks somewhere inside.

Whatever lies there is a stranger's. Links are never followed, nothing is unpacked to disk, sizes are bounded
before anything is read, and what is left out is said.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from lessonlib.checks import EXERCISES
from lessonlib.errors import CourseError
from lessonlib.grading.cells import functions_file

MAX_SOURCE = 1 << 20  # bytes of one Python file
MAX_NOTEBOOK = 64 << 20  # bytes of one notebook, its outputs included
MAX_ENTRIES = 20_000  # files of one submission
STUDENT = re.compile(r"\w[\w .@+,'-]{0,99}")
NOT_ANSWERS = {"solutions", "mutants", "site-packages", "node_modules", "__pycache__", "__MACOSX"}
ANSWERS = "exercises"  # the folder that the course itself has them in


class Unreadable(Exception):  # noqa: N818 - a verdict on one submission, not an error of the grader
    """Nothing of a submission can be graded; the text is a sentence that says why."""


@dataclass(frozen=True)
class Submission:
    """What one student handed in.

    Attributes:
        student: the name of the folder or of the zip.
        files: exercise id → the text of its file, as bytes.
        notes: what was left out or taken from a notebook, a sentence each.
        submitted: when the newest of the files was last changed, in UTC.
        problem: why nothing of it can be graded, or "".
    """

    student: str
    files: dict[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    submitted: str = ""
    problem: str = ""

    @property
    def digest(self) -> str:
        """The same for the same files and the same problem."""
        whole = hashlib.sha256(self.problem.encode())
        for name, text in sorted(self.files.items()):
            whole.update(f"\0{name}\0{len(text)}\0".encode() + text)
        return whole.hexdigest()


@dataclass(frozen=True)
class Entry:
    """One file of a submission: where it lies in it, its size, when it was changed, and how to read it."""

    path: PurePosixPath
    size: int
    changed: float
    read: Callable[[int], bytes]


def find(folder: Path) -> tuple[list[Path], list[str]]:
    """(folders and zips, what lies beside them and is left out), in order of name.

    Raises `CourseError` where there is none.
    """
    if not folder.is_dir():
        raise CourseError(f"no folder {folder}: give the one that holds a folder or a zip for each student")
    found, left_out = [], []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in NOT_ANSWERS:
            continue
        if path.is_symlink():
            left_out.append(f"{path.name}: a link is not followed")
        elif not path.is_dir() and path.suffix.lower() != ".zip":
            left_out.append(f"{path.name}: neither a folder nor a zip")
        elif not STUDENT.fullmatch(_student_of(path)):
            left_out.append(f"{path.name!r}: not a student's name (letters, digits, and . @ + , ' - within)")
        else:
            found.append(path)
    if not found:
        said = f" ({'; '.join(left_out)})" if left_out else ""
        raise CourseError(
            f"no submission in {folder}{said}: it should hold a folder or a zip for each student"
        )
    return found, left_out


def by_student(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Student → where their work lies; more than one place is more than can be graded."""
    places: dict[str, list[Path]] = {}
    for path in paths:
        places.setdefault(_student_of(path), []).append(path)
    return places


def _student_of(path: Path) -> str:
    return path.name if path.is_dir() else path.stem


def read(student: str, places: Sequence[Path], wanted: Sequence[str]) -> Submission:
    """What a student handed in for the exercises `wanted`. Never raises: a submission can have a problem."""
    try:
        if len(places) > 1:
            names = " and ".join(path.name for path in places)
            raise Unreadable(f"{student} is here more than once: {names}. Leave one of them there.")
        return _read(student, places[0], wanted)
    except Unreadable as problem:
        return Submission(student, problem=str(problem))
    except OSError as error:
        return Submission(student, problem=f"It cannot be read: {error.strerror or error}.")


def _read(student: str, place: Path, wanted: Sequence[str]) -> Submission:
    notes: list[str] = []
    entries = list(_entries(place, notes))
    files: dict[str, bytes] = {}
    changed = []
    for exercise in wanted:
        for entry in _chosen(entries, f"{exercise}.py", notes):
            if text := _bounded(entry, MAX_SOURCE, notes):
                files[exercise] = text
                changed.append(entry.changed)
    for entry in _notebooks(entries, [name for name in wanted if name not in files], notes):
        made = functions_file_of(entry, [name for name in wanted if name not in files], notes)
        files |= made
        changed += [entry.changed] if made else []
    if not files:
        there = ", ".join(sorted(str(entry.path) for entry in entries)[:5]) or "no file"
        said = f" {' '.join(notes)}" if notes else ""
        names = ", ".join(f"{name}.py" for name in wanted)
        raise Unreadable(
            f"There is none of {names}, and no notebook with their functions. It has {there}.{said}"
        )
    submitted = datetime.fromtimestamp(max(changed), UTC).isoformat(timespec="seconds")
    return Submission(student, files, tuple(notes), submitted)


def functions_file_of(entry: Entry, exercises: Sequence[str], notes: list[str]) -> dict[str, bytes]:
    """The exercises that a notebook answers."""
    text = _bounded(entry, MAX_NOTEBOOK, notes)
    made = {}
    for name in exercises:
        try:
            source = functions_file(text, EXERCISES[name])
        except ValueError as error:
            notes.append(f"{entry.path}: {error}.")
            return {}
        if source:
            made[name] = source.encode()
            notes.append(f"{name}.py was taken from {entry.path}.")
    return made


# ----- which file is meant -----


def _chosen(entries: Sequence[Entry], name: str, notes: list[str]) -> list[Entry]:
    """The file of this name: the one in `exercises/`, else the one nearest to the top. None where two are."""
    found = [entry for entry in entries if entry.path.name == name]
    if not found:
        return []
    rank = {id(entry): (ANSWERS not in entry.path.parts, len(entry.path.parts)) for entry in found}
    best = min(rank.values())
    nearest = [entry for entry in found if rank[id(entry)] == best]
    if len(nearest) > 1:
        paths = " and ".join(sorted(str(entry.path) for entry in nearest))
        notes.append(f"{name} is there more than once ({paths}): neither was taken.")
        return []
    return nearest


def _notebooks(entries: Sequence[Entry], missing: Sequence[str], notes: list[str]) -> Iterator[Entry]:
    """The notebooks whose names begin with an exercise's id or its number, `ex03_mine.ipynb`, `03_the_….ipynb`."""
    numbers = {name[2:4] for name in missing}
    names = sorted({entry.path.name for entry in entries if entry.path.suffix == ".ipynb"})
    for name in names:
        if name.removeprefix("ex")[:2] in numbers:
            yield from _chosen(entries, name, notes)


def _bounded(entry: Entry, most: int, notes: list[str]) -> bytes:
    """The file's bytes, or b"" and a note."""
    if entry.size > most:
        notes.append(f"{entry.path} has {entry.size:,} bytes, more than {most:,}: it was not read.")
        return b""
    try:
        text = entry.read(most + 1)
    except (OSError, RuntimeError, zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        notes.append(f"{entry.path} cannot be read ({error}).")
        return b""
    if len(text) > most:
        notes.append(f"{entry.path} unpacks to more than {most:,} bytes: it was not read.")
        return b""
    if not text.strip():
        notes.append(f"{entry.path} is empty.")
    return text


# ----- folders and zips -----


def _entries(place: Path, notes: list[str]) -> Iterator[Entry]:
    """Files that could be answers."""
    for many, entry in enumerate(_in_folder(place, notes) if place.is_dir() else _in_zip(place, notes)):
        if many >= MAX_ENTRIES:
            raise Unreadable(f"It has more than {MAX_ENTRIES:,} files.")
        hidden = any(part.startswith(".") or part in NOT_ANSWERS for part in entry.path.parts)
        if not hidden and entry.path.suffix in (".py", ".ipynb"):
            yield entry


def _in_folder(place: Path, notes: list[str]) -> Iterator[Entry]:
    for folder, _, names in os.walk(place):
        for name in sorted(names):
            path = Path(folder, name)
            relative = PurePosixPath(path.relative_to(place))
            there = path.lstat()
            if stat.S_ISREG(there.st_mode):
                yield Entry(relative, there.st_size, there.st_mtime, _reader(path))
            elif stat.S_ISLNK(there.st_mode):
                notes.append(f"{relative} is a link: it was not followed.")
            else:
                notes.append(f"{relative} is not a plain file: it was not read.")


def _reader(path: Path) -> Callable[[int], bytes]:
    def read_bytes(most: int) -> bytes:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return file.read(most)

    return read_bytes


def _in_zip(place: Path, notes: list[str]) -> Iterator[Entry]:
    try:
        archive = zipfile.ZipFile(place)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise Unreadable(f"{place.name} is not a zip that can be read ({error}).") from error
    with archive:
        for info in archive.infolist():
            path = PurePosixPath(info.filename)
            if info.is_dir():
                continue
            if stat.S_ISLNK(info.external_attr >> 16):
                notes.append(f"{path} is a link: it was not followed.")
            elif path.is_absolute() or ".." in path.parts or re.search(r"[\\:\0]", info.filename):
                notes.append(f"{path} points out of the zip: it was not read.")
            else:
                yield Entry(path, info.file_size, place.stat().st_mtime, _unpacker(place, info))


def _unpacker(place: Path, info: zipfile.ZipInfo) -> Callable[[int], bytes]:
    def read_bytes(most: int) -> bytes:
        with zipfile.ZipFile(place) as archive, archive.open(info) as file:
            return file.read(most)

    return read_bytes
