"""A class's roster, as a platform exports it: who is in the class, and which row of the grade book is whose."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lessonlib.errors import CourseError
from lessonlib.grading.layouts import CANVAS, MOODLE, NO_SUBMISSION, NOT_IN_ROSTER, Handin, LeftOut
from lessonlib.grading.names import same_name

# What a Canvas gradebook, and Moodle's grading worksheet, begin with.
CANVAS_COLUMNS = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")
MOODLE_COLUMNS = ("Identifier", "Full name")
# The columns that a student can be found by, the platform's own number first.
KEYS = {
    CANVAS: ("ID", "SIS User ID", "SIS Login ID", "Student"),
    MOODLE: ("Identifier", "ID number", "Email address", "Username", "Full name"),
}
NAME = {CANVAS: "Student", MOODLE: "Full name"}
PARTICIPANT = re.compile(r"\D*(\d+)")  # "Participant 123"
POINTS_POSSIBLE = "    Points Possible"  # Canvas tells this row by its first cell, spaces and all
NO_STUDENTS = {POINTS_POSSIBLE.strip().lower(), "student, test", "test student"}
NUMBERED = re.compile(r".+ \(\d+\)")  # a column of Canvas's own

Row = Mapping[str, str]


@dataclass(frozen=True)
class Roster:
    """Attributes:
    platform: CANVAS or MOODLE.
    columns: in the order of the file.
    rows: one a student.
    points_possible: of each of Canvas's columns, where the file says so.
    """

    platform: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    points_possible: Row = field(default_factory=dict)

    def assignment(self, name: str) -> str | None:
        """Canvas's column of that name, which ends with its number: `continuous-batching (123)`."""
        return next((each for each in self.assignments if each.rpartition(" (")[0] == name), None)

    @property
    def assignments(self) -> list[str]:
        """Canvas's columns of assignments."""
        return [each for each in self.columns if NUMBERED.fullmatch(each)]

    def name(self, row: Row) -> str:
        """A student as a person would look for them."""
        number = KEYS[self.platform][0]
        return f"{row[NAME[self.platform]]} ({number} {row[number]})"

    def numbers(self, row: Row) -> str:
        """The platform's number of a student."""
        text = row[KEYS[self.platform][0]]
        found = PARTICIPANT.fullmatch(text) if self.platform == MOODLE else None
        return found[1] if found else text


@dataclass(frozen=True)
class Matched:
    """Who of a class is which row of a roster.

    Attributes:
        handins: those of one student in one.
        rows: student → row, for those that have one.
        left_out: submissions that match no student, and students without one.
    """

    handins: tuple[Handin, ...]
    rows: Mapping[str, Row]
    left_out: tuple[LeftOut, ...]


def read_roster(path: Path) -> Roster:
    """A gradebook exported from Canvas, or Moodle's grading worksheet. Raises `CourseError` for what is neither."""
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")))
        rows = [{name: value or "" for name, value in row.items() if name} for row in reader]
        columns = tuple(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CourseError(
            f"cannot read the roster {path}: {error}; export the gradebook from Canvas, or the grading worksheet "
            "from Moodle"
        ) from error
    for platform, needed in ((CANVAS, CANVAS_COLUMNS[:2]), (MOODLE, MOODLE_COLUMNS)):
        if set(needed) <= set(columns):
            name = NAME[platform]
            students = (row for row in rows if row[name] and row[name].strip().lower() not in NO_STUDENTS)
            possible = [row for row in rows if row[name].strip() == POINTS_POSSIBLE.strip()]
            return Roster(platform, columns, tuple(students), dict(*possible[:1]))
    raise CourseError(
        f"{path} is neither a Canvas gradebook nor a Moodle grading worksheet: it should begin with the columns "
        f"{', '.join(CANVAS_COLUMNS)} or {', '.join(MOODLE_COLUMNS)}"
    )


def match(roster: Roster, handins: Sequence[Handin], layout: str) -> Matched:
    """Which row is whose.

    Raises `CourseError`, with the rows, for a submission that could be two students'.
    """
    found: dict[int, list[Handin]] = defaultdict(list)
    unknown = []
    index = _Index(roster)
    for handin in handins:
        row = index.row_of(handin, layout)
        if row is None:
            unknown.append(handin)
        else:
            found[row].append(handin)
    rows, merged = {}, list(unknown)
    for number, theirs in found.items():
        merged.append(_one_of(theirs, roster.name(roster.rows[number])))
        rows[merged[-1].student] = roster.rows[number]
    absent = [roster.name(row) for number, row in enumerate(roster.rows) if number not in found]
    left_out = [
        *(LeftOut(handin.student, "no student of the roster", NOT_IN_ROSTER) for handin in unknown),
        *(LeftOut(name, "nothing was handed in", NO_SUBMISSION) for name in absent),
    ]
    return Matched(tuple(sorted(merged, key=lambda each: each.student)), rows, tuple(left_out))


class _Index:
    """Looks up a roster's rows."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._rows: dict[tuple[str, str], set[int]] = defaultdict(set)
        for number, row in enumerate(roster.rows):
            for column in KEYS[roster.platform]:
                if row.get(column):
                    self._rows[column, same_name(row[column])].add(number)
            self._rows[KEYS[roster.platform][0], roster.numbers(row)].add(number)

    def row_of(self, handin: Handin, layout: str) -> int | None:
        """By the platform's own number where the submission has one, else by whatever it is called.

        Raises `CourseError` for one that could be two students'.
        """
        first = KEYS[self._roster.platform][0]
        if layout == self._roster.platform:
            found = self._rows.get((first, handin.platform_id), set())
        else:
            names = {same_name(name) for name in (handin.student, handin.platform_id, handin.name) if name}
            found = {row for (_, value), rows in self._rows.items() if value in names for row in rows}
        if len(found) > 1:
            owners = " or ".join(self._roster.name(self._roster.rows[row]) for row in sorted(found))
            raise CourseError(f"{handin.student} could be {owners}: rename it so that it is one student's")
        return next(iter(found), None)


def _one_of(handins: Sequence[Handin], student: str) -> Handin:
    """The one submission of a student; several are more than can be graded."""
    if len(handins) == 1:
        return handins[0]
    names = " and ".join(each.student for each in handins)
    problem = f"{student} is here more than once: {names}. Leave one of them there."
    return replace(handins[0], parts=tuple(part for each in handins for part in each.parts), problem=problem)
