"""Pages for people: one a student, and one for the class. Plain HTML, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader

from lessonlib.checks.report import Result, html_of
from lessonlib.checks.sandbox.cleaning import clean
from lessonlib.grading.layouts import LeftOut
from lessonlib.grading.names import file_stem
from lessonlib.grading.similarity import Pair
from lessonlib.grading.tables import (
    Mistake,
    Obstacle,
    amount,
    commonest_obstacles,
    not_there,
    obstacles,
    sentences,
)
from lessonlib.viz.style import Picture


def _finalize(value: Any) -> Any:
    """Whatever stands in a page may be a student's text."""
    return clean(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


PAGES = Environment(
    loader=PackageLoader("lessonlib.grading"), autoescape=True, finalize=_finalize, trim_blocks=True
)


def student_page(record: Mapping[str, Any], results: Sequence[Result]) -> str:
    """What a student is to know of their work."""
    return PAGES.get_template("student.html").render(
        title=record["student"],
        record=record,
        results=results,
        sandbox=_sandbox(record),
        html_of=html_of,
        points=_points,
    )


def class_page(
    records: Sequence[Mapping[str, Any]],
    mistakes: Sequence[Mistake],
    found: Sequence[Obstacle],
    left_out: Sequence[LeftOut],
    pairs: Sequence[Pair],
    histogram: Picture,
) -> str:
    """The histogram, the commonest mistakes, what could not be checked, and everyone with a link to their page."""
    return PAGES.get_template("class.html").render(
        title="The class",
        histogram=base64.b64encode(histogram.png()).decode(),
        histogram_alt=histogram.alt,
        mistakes=[(each.task, each.told, each.students) for each in mistakes],
        obstacles=commonest_obstacles(found),
        left_out=[(each.kind, each.name, each.reason) for each in left_out],
        pairs=[(each.exercise, each.first, each.second, f"{each.share:.0%}") for each in pairs],
        records=records,
        beside=_beside,
        points=_points,
        link=lambda student: quote(os.fsencode(file_stem(student))),
    )


def _beside(record: Mapping[str, Any]) -> str:
    """What the instructor should know of a student beside the points."""
    found = obstacles(record)
    missing = ", ".join(not_there(found))
    parts = [record["override"], *sentences(found), f"Not handed in: {missing}." if missing else ""]
    return " ".join(part for part in [*parts, *record["notes"]] if part)


def _points(record: Mapping[str, Any]) -> str:
    return f"{amount(record['score'])} of {amount(record['max_score'])} points"


def _sandbox(record: Mapping[str, Any]) -> str:
    levels = [
        f"{level['name']}"
        + (f" (not contained: {', '.join(level['not_contained'])})" * bool(level["not_contained"]))
        for level in record["sandbox"]
    ]
    return f"sandbox: {'; '.join(levels) or 'nothing ran'}"
