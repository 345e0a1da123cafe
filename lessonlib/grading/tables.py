"""The class in tables: grades in nbgrader's and in Canvas's columns, the commonest mistakes, a histogram."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from lessonlib.checks import EXERCISES
from lessonlib.checks.cleaning import clean
from lessonlib.checks.report import CAN_BE_READ, ERROR, FAILED, HAS_FUNCTION, IS_THERE, NOT_WRITTEN, SAID
from lessonlib.errors import CourseError
from lessonlib.viz import style

# What `nbgrader export` writes (nbgrader 0.9), and what a Canvas gradebook exports and takes back.
NBGRADER = (
    *("assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email"),
    *("raw_score", "late_submission_penalty", "score", "max_score"),
)
CANVAS = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")
POINTS_POSSIBLE = "    Points Possible"  # as Canvas writes it, spaces and all
BARS = 10
FILES = {task.id: f"{exercise.id}.py" for exercise in EXERCISES.values() for task in exercise.tasks}
EVERYTHING = "the submission"
UNWRITTEN = SAID[NOT_WRITTEN]

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Mistake:
    """What did not hold in a task, and for how many students."""

    task: str
    told: str
    students: int


@dataclass(frozen=True)
class Obstacle:
    """Why something of one student's could not be checked.

    Attributes:
        student: whose it is.
        part: "the submission", "ex03.py", or a task whose function is not there.
        told: what should hold and did not; "" where the checker failed.
        sentence: what is wrong with just this one.
    """

    student: str
    part: str
    told: str
    sentence: str


def amount(points: float) -> str:
    """ "3", "3.5"."""
    return f"{points:g}"


def nbgrader_csv(records: Sequence[Record], assignment: str) -> str:
    """One row a student. Penalties are the learning platform's business: here they are 0."""
    rows = [
        {
            "assignment": assignment,
            "timestamp": record["submitted"],
            "student_id": record["student"],
            "raw_score": amount(record["score"]),
            "late_submission_penalty": "0",
            "score": amount(record["score"]),
            "max_score": amount(record["max_score"]),
        }
        for record in records
    ]
    return _csv(NBGRADER, rows)


def canvas_csv(records: Sequence[Record], assignment: str, roster: Mapping[str, Mapping[str, str]]) -> str:
    """One row a student, below one with the points there were; `roster` is what `read_roster` gave, or empty.

    Without a roster the student's name stands where Canvas looks for a login.
    """
    most = max((record["max_score"] for record in records), default=0.0)
    rows = [{"Student": POINTS_POSSIBLE, assignment: amount(most)}]
    for record in records:
        student = record["student"]
        known = roster.get(student, {"Student": student, "SIS Login ID": student})
        rows.append({**{name: known.get(name, "") for name in CANVAS}, assignment: amount(record["score"])})
    return _csv((*CANVAS, assignment), rows)


def read_roster(path: Path) -> dict[str, dict[str, str]]:
    """A gradebook exported from Canvas: each student's columns, by login, by user id and by Canvas's id.

    Raises `CourseError` for what is none.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CourseError(
            f"cannot read the roster {path}: {error}; export the gradebook from Canvas"
        ) from error
    if not rows or "Student" not in rows[0] or "ID" not in rows[0]:
        raise CourseError(
            f"{path} is not a Canvas gradebook: it should begin with the columns {', '.join(CANVAS)}"
        )
    return {row[name]: row for name in ("ID", "SIS User ID", "SIS Login ID") for row in rows if row.get(name)}


def commonest_mistakes(records: Iterable[Record]) -> list[Mistake]:
    """What was wrong with answers, the most frequent first; of equals, in order of the course.

    What is not written yet comes last. A file that is not there or cannot be loaded is an obstacle instead.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for record in records:
        counts.update({(result["id"], said) for result in record["results"] if (said := _mistake(result))})
    mistakes = [Mistake(task, said, many) for (task, said), many in counts.items()]
    return sorted(mistakes, key=lambda each: (each.told == UNWRITTEN, -each.students, each.task, each.told))


def _mistake(result: Mapping[str, Any]) -> str:
    if result["status"] == FAILED:
        return result["property"]
    return UNWRITTEN if result["status"] == NOT_WRITTEN else ""


def mistakes_csv(mistakes: Sequence[Mistake]) -> str:
    return _csv(("task", "told", "students"), [vars(each) for each in mistakes])


def obstacles(record: Record) -> list[Obstacle]:
    """Why something of a student's could not be checked: each cause once, however many tasks it stops."""
    student = record["student"]
    if record["problem"]:
        return [Obstacle(student, EVERYTHING, CAN_BE_READ, record["problem"])]
    found = {}
    for result in record["results"]:
        if result["status"] == ERROR:
            told = result["property"]
            part = result["id"] if told == HAS_FUNCTION else FILES[result["id"]]
            found[part, told] = Obstacle(student, part, told, result["sentence"])
    return list(found.values())


def obstacles_of(records: Iterable[Record]) -> list[Obstacle]:
    """Those of all students."""
    return [each for record in records for each in obstacles(record)]


def sentences(found: Iterable[Obstacle]) -> list[str]:
    """What to say of each, but for files that are not there, which are counted instead."""
    return [each.sentence for each in found if each.told != IS_THERE]


def not_there(found: Iterable[Obstacle]) -> Counter[str]:
    """File → how many students did not hand it in."""
    return Counter(each.part for each in found if each.told == IS_THERE)


def commonest_obstacles(found: Iterable[Obstacle]) -> list[tuple[str, str, int]]:
    """(part, what does not hold, students), in the order of `commonest_mistakes`."""
    counts = Counter((each.part, each.told or SAID[ERROR]) for each in found)
    return [(*what, many) for what, many in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def obstacles_csv(found: Iterable[Obstacle]) -> str:
    return _csv(("student", "part", "told", "sentence"), [vars(each) for each in found])


def histogram(records: Sequence[Record]) -> style.Picture:
    """How many students have what share of the points."""
    shares = [
        100 * record["score"] / record["max_score"] if record["max_score"] else 0.0 for record in records
    ]
    counts, edges = np.histogram(shares, BARS, (0, 100))
    median = float(np.median(shares)) if shares else 0.0
    title = f"Half of the class has {median:.0f}% of the points or more"
    with style.applied():
        figure = style.picture(2.6, title)
        axes = figure.add_subplot()
        axes.bar(edges[:-1], counts, width=np.diff(edges) * 0.92, align="edge", color=style.DECODE)
        axes.set_xlim(0, 100)
        axes.set_xticks(edges)
        axes.set_xlabel("share of the points (%)")
        axes.set_ylabel("students")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        style.quiet_grid(axes)
        return style.finish(figure, title)


def _csv(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: clean(str(value)) for name, value in row.items()} for row in rows)
    return text.getvalue()
