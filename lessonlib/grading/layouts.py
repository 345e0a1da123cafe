"""How learning platforms hand over a class: which files belong to which student.

  folders     ada/  bob.zip
  canvas      lovelaceada_77_12345_ex01-1.py  lovelaceada_LATE_77_12346_work.zip
  moodle      Ada Lovelace_123_assignsubmission_file_/ex01.py  Ada Lovelace_123_assignsubmission_file_ex01.py
  gradescope  assignment_5_export/submission_98/ex01.py, named by submission_metadata.yml

Each of them unpacked in a folder, or as the zip that was downloaded.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lessonlib.checks.sandbox.cleaning import clean
from lessonlib.errors import CourseError
from lessonlib.grading.archives import (
    FILE,
    FOLDER,
    LINK,
    Top,
    Unreadable,
    describe,
    is_archive,
    without_ending,
)
from lessonlib.grading.names import same_name, shown_name

FOLDERS, CANVAS, MOODLE, GRADESCOPE = LAYOUTS = ("folders", "canvas", "moodle", "gradescope")
NO_STUDENT, NOT_IN_ROSTER, NOT_GRADED, NO_SUBMISSION = KINDS = (
    *("belongs to no student", "not in the roster", "not graded", "no submission"),
)
CLEAR = 0.8  # share of the names that have a platform's form, from which on it is clear which it is
FORMULA = ("=", "+", "-", "@")  # what makes a spreadsheet take a cell for a formula
JUNK = {"Thumbs.db", "desktop.ini", "__MACOSX", "__pycache__"}

CANVAS_NAME = re.compile(r"(?P<name>.+?)_(?:LATE_)?(?P<id>\d+)_(?:\d+_)?(?P<file>[^_].*)", re.DOTALL)
MOODLE_NAME = re.compile(
    r"(?P<name>.+?)_(?P<id>\d+)_assignsubmission_(?P<kind>file|onlinetext)(?:_(?P<file>.*))?", re.DOTALL
)
GRADESCOPE_NAME = re.compile(r"submission_(?P<id>\d+)")
GRADESCOPE_WRAPPER = re.compile(r"assignment_\d+_export")
METADATA = "submission_metadata.yml"


@dataclass(frozen=True)
class Part:
    """A file, a folder or an archive of the class that is part of a submission.

    Attributes:
        source: its name in the class's folder or zip, with the folders above it there.
        path: what it is called in the submission; "." where it is the whole of it.
    """

    source: tuple[str, ...]
    path: str = "."


@dataclass(frozen=True)
class Handin:
    """What one student handed in.

    Attributes:
        student: the name that their records have.
        parts: where it lies.
        platform_id: the platform's number of the student, or "".
        name: the student's name as the platform has it.
        problem: why it cannot be graded, or "".
    """

    student: str
    parts: tuple[Part, ...]
    platform_id: str = ""
    name: str = ""
    problem: str = ""


@dataclass(frozen=True)
class LeftOut:
    """What is called `name` is not in the tables, for this `reason`; `kind` is one of KINDS."""

    name: str
    reason: str
    kind: str


@dataclass(frozen=True)
class Collected:
    """A class as it was handed over.

    Attributes:
        layout: one of LAYOUTS.
        guessed: why this layout was taken, or "" where it was named.
        handins: in order of the students' names.
        left_out: what belongs to no student.
    """

    layout: str
    guessed: str
    handins: tuple[Handin, ...]
    left_out: tuple[LeftOut, ...]


def collect(source: Path, layout: str | None = None) -> Collected:
    """Whose what is in a class's folder, or in the zip that a platform makes of one.

    Raises `CourseError` where there is nothing to grade, and where no layout is named and none is clear.
    """
    if layout is not None and layout not in LAYOUTS:
        raise CourseError(f"unknown layout {layout!r}: there is {', '.join(LAYOUTS)}")
    if not source.exists():
        raise CourseError(
            f"no folder {clean(str(source))}: give the one that holds the submissions, or their zip"
        )
    found, guessed = _Found(), ""
    with Top(source) as top:
        if layout is None:
            layout, guessed = _guess(source, _children(top))
        READERS[layout](top, found)
    if not found.students:
        reasons = f" ({'; '.join(f'{each.name}: {each.reason}' for each in found.left_out)})"
        raise CourseError(
            f"no submission in {clean(str(source))}{reasons * bool(found.left_out)}: {EXPECTED[layout]}"
        )
    return Collected(layout, guessed, found.handins(), tuple(found.left_out))


def _children(top: Top, above: tuple[str, ...] = ()) -> dict[str, str]:
    """Name → kind of what lies there, in order of name, without what file managers leave behind."""
    children = sorted(top.children(above).items())
    return {name: kind for name, kind in children if not name.startswith(".") and name not in JUNK}


# ----- which layout -----


def _guess(source: Path, names: Mapping[str, str]) -> tuple[str, str]:
    """(layout, why). Raises `CourseError` where some names say one thing and some another."""
    first = clean(next(iter(names), ""))
    if METADATA in names or (len(names) == 1 and GRADESCOPE_WRAPPER.fullmatch(first)):
        return GRADESCOPE, METADATA if METADATA in names else first
    forms = {
        MOODLE: [name for name in names if MOODLE_NAME.fullmatch(name)],
        CANVAS: [name for name, kind in names.items() if kind == FILE and CANVAS_NAME.fullmatch(name)],
        GRADESCOPE: [name for name in names if GRADESCOPE_NAME.fullmatch(name)],
    }
    for layout, alike in forms.items():
        if alike and len(alike) >= CLEAR * len(names):
            return layout, clean(alike[0])
        if alike:
            raise CourseError(
                f"cannot tell how {clean(str(source))} is laid out: {len(alike)} of {len(names)} names look like "
                f"{layout}'s, such as {clean(alike[0])}; say --from {layout} or --from {FOLDERS}"
            )
    return FOLDERS, ""


# ----- reading each -----


@dataclass
class _Student:
    """What is known of one student so far."""

    parts: list[Part] = field(default_factory=list)
    platform_id: str = ""
    name: str = ""
    problem: str = ""


class _Found:
    """What a reader has found so far."""

    def __init__(self) -> None:
        self.students: dict[str, _Student] = defaultdict(_Student)
        self.left_out: list[LeftOut] = []

    def leave(self, name: str, reason: str) -> None:
        self.left_out.append(LeftOut(shown_name(name), reason, NO_STUDENT))

    def handins(self) -> tuple[Handin, ...]:
        """In order of name."""
        return tuple(
            Handin(student, tuple(each.parts), each.platform_id, each.name, each.problem)
            for student, each in sorted(self.students.items())
        )


def _read_folders(top: Top, found: _Found) -> None:
    """A folder or an archive for each student, which has the student's name."""
    keys: dict[str, str] = {}
    for name, kind in _children(top).items():
        if (reason := _no_folder(name, kind)) is not None:
            found.leave(name, reason)
            continue
        student = shown_name(name if kind == FOLDER else without_ending(name))
        student = keys.setdefault(same_name(student), student)  # Zoë and Zoë, Ada and ada are one
        found.students[student].parts.append(Part((name,)))
        found.students[student].name = student
    for student, each in found.students.items():
        if len(each.parts) > 1:
            names = " and ".join(shown_name(part.source[0]) for part in each.parts)
            each.problem = f"{student} is here more than once: {names}. Leave one of them there."


def _no_folder(name: str, kind: str) -> str | None:
    """Why this belongs to no student; None where it does."""
    if kind == LINK:
        return "a link is not followed"
    if kind != FOLDER and not is_archive(name):
        return "neither a folder nor a zip"
    return _no_name(name)


def _no_name(name: str) -> str | None:
    if name.startswith(FORMULA):
        return f"a name that begins with {name[0]} is a formula to a spreadsheet: rename it"
    return None


def _read_canvas(top: Top, found: _Found) -> None:
    """One flat folder; each file's name begins with its student's."""
    for name, kind in _children(top).items():
        form = CANVAS_NAME.fullmatch(name)
        if kind == LINK:
            found.leave(name, "a link is not followed")
        elif form is None or kind == FOLDER:
            found.leave(name, "not a name that Canvas gives: student_ID_submission_file")
        elif (reason := _no_name(name)) is not None:
            found.leave(name, reason)
        else:
            _add(found, form["name"], form["id"], Part((name,), form["file"]))


def _read_moodle(top: Top, found: _Found) -> None:
    """A folder for each student and kind of submission, or files that begin as such a folder does."""
    online = {}
    for name, kind in _children(top).items():
        form = MOODLE_NAME.fullmatch(name)
        if kind == LINK:
            found.leave(name, "a link is not followed")
        elif form is None or (kind != FOLDER and not form["file"]):
            found.leave(name, "not a name that Moodle gives: Name_ID_assignsubmission_file")
        elif (reason := _no_name(name)) is not None:
            found.leave(name, reason)
        elif form["kind"] == "onlinetext":
            online[name] = f"{form['name']}_{form['id']}"
        else:
            _add(found, form["name"], form["id"], Part((name,), form["file"] or "."))
    for name, student in online.items():
        if shown_name(student) not in found.students:
            found.leave(name, "a text that was typed in, and no file")


def _read_gradescope(top: Top, found: _Found) -> None:
    """A folder for each submission; a file beside them says whose it is, which may be several students'."""
    above: tuple[str, ...] = ()
    names = _children(top)
    if len(names) == 1 and METADATA not in names:
        above = (next(iter(names)),)
        names = _children(top, above)
    owners = _gradescope_owners(top, above) if METADATA in names else {}
    for name, kind in names.items():
        form = GRADESCOPE_NAME.fullmatch(name)
        if name == METADATA:
            continue
        if form is None or kind != FOLDER:
            found.leave(name, "not a name that Gradescope gives: submission_ID")
            continue
        for owner in owners.get(name) or [{"name": name.removesuffix(f"_{form['id']}"), "id": form["id"]}]:
            _add(found, owner["name"], owner["id"], Part((*above, name)))


def _gradescope_owners(top: Top, above: tuple[str, ...]) -> dict[str, list[dict[str, str]]]:
    """Submission → its submitters: name, and the number that the school has for them, else their address."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        loaded = yaml.load(top.read((*above, METADATA)), loader)
        return {
            str(submission): [_owner(each) for each in about[":submitters"]]
            for submission, about in loaded.items()
        }
    except (OSError, Unreadable, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CourseError(
            f"cannot read {METADATA} ({describe(error)}): export the submissions again"
        ) from error


def _owner(submitter: Mapping[str, Any]) -> dict[str, str]:
    name, number, address = (str(submitter.get(f":{each}") or "") for each in ("name", "sid", "email"))
    return {"name": name or address or number, "id": number or address or name}


def _add(found: _Found, name: str, platform_id: str, part: Part) -> None:
    """A part of a student's work; the number tells those of one name apart."""
    student = found.students[shown_name(f"{name}_{platform_id}")]
    student.parts.append(part)
    student.name, student.platform_id = shown_name(name), platform_id


READERS: dict[str, Callable[[Top, _Found], None]] = {
    FOLDERS: _read_folders,
    CANVAS: _read_canvas,
    MOODLE: _read_moodle,
    GRADESCOPE: _read_gradescope,
}
EXPECTED = {
    FOLDERS: "it should hold a folder or a zip for each student",
    CANVAS: "it should hold files as Canvas names them, student_ID_submission_file",
    MOODLE: "it should hold folders as Moodle names them, Name_ID_assignsubmission_file",
    GRADESCOPE: "it should hold folders as Gradescope names them, submission_ID",
}
