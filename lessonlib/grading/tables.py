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

from lessonlib.checks.report import ERROR, FAILED, NOT_WRITTEN, SAID
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

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Mistake:
    """What did not hold in a task, and for how many students."""

    task: str
    told: str
    students: int


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
    """The most frequent first; of equals, in order of the course."""
    counts: Counter[tuple[str, str]] = Counter()
    for record in records:
        told = {(result["id"], _mistake(result)) for result in record["results"] if _mistake(result)}
        counts.update(told)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [Mistake(task, said, many) for (task, said), many in ordered]


def _mistake(result: Mapping[str, Any]) -> str:
    if result["status"] == FAILED:
        return result["property"]
    return SAID[result["status"]] if result["status"] in (NOT_WRITTEN, ERROR) else ""


def mistakes_csv(mistakes: Sequence[Mistake]) -> str:
    return _csv(("task", "told", "students"), [vars(each) for each in mistakes])


def histogram(records: Sequence[Record]) -> tuple[bytes, str]:
    """(PNG, what it shows in words): how many students have what share of the points."""
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
        axes.set_xlabel("share of the points (%)")
        axes.set_ylabel("students")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        style.quiet_grid(axes)
        return style.finish(figure, title).png(), title


def _csv(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
