"""Pages for people: one a student, and one for the class. Plain HTML, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from lessonlib.checks.cleaning import clean
from lessonlib.checks.report import Result, html_of
from lessonlib.grading.names import file_stem
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

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
table.rows { border-collapse: collapse; } .rows td, .rows th { text-align: left; padding: .15em 1em .15em 0; }
.rows td, .rows th { vertical-align: top; } .rows .number { text-align: right; white-space: nowrap; }
img { max-width: 100%; } code { font-size: .9em; }
"""


def student_page(record: Mapping[str, Any], results: Sequence[Result]) -> str:
    """What a student is told of their work."""
    parts = [f"<p>{_points(record)}</p>"]
    parts += [f"<p><b>{_text(record['problem'])}</b></p>"] if record["problem"] else []
    parts += [f"<p>{_text(note)}</p>" for note in record["notes"]]
    parts += map(html_of, results)
    parts += [f"<p>Checked with course {escape(record['course'])}; {escape(_sandbox(record))}.</p>"]
    return _page(record["student"], parts)


def class_page(
    records: Sequence[Mapping[str, Any]],
    mistakes: Sequence[Mistake],
    found: Sequence[Obstacle],
    histogram: Picture,
) -> str:
    """The histogram, the commonest mistakes, what could not be checked, and everyone with a link to their page."""
    picture = base64.b64encode(histogram.png()).decode()
    told = ["<h2>Points</h2>", f'<img alt="{escape(histogram.alt)}" src="data:image/png;base64,{picture}">']
    told.append("<p>How many students have what share of the points that they could have.</p>")
    told.append("<h2>Commonest mistakes</h2>")
    rows = [(each.task, each.told, str(each.students)) for each in mistakes]
    told.append(_table(("task", "what did not hold", "students"), rows) if rows else "<p>None.</p>")
    if found:
        counts = [(part, said, str(many)) for part, said, many in commonest_obstacles(found)]
        told += ["<h2>Could not be checked</h2>", _table(("of", "what did not hold", "students"), counts)]
    told.append("<h2>Students</h2>")
    everyone = [(_link(record["student"]), _text(_beside(record)), _points(record)) for record in records]
    told.append(_table(("student", "", "points"), everyone, marked_up=True))
    return _page("The class", told)


def _beside(record: Mapping[str, Any]) -> str:
    """What whoever grades should know of a student beside the points."""
    found = obstacles(record)
    missing = ", ".join(not_there(found))
    return " ".join(
        [*sentences(found), *([f"Not handed in: {missing}."] if missing else []), *record["notes"]]
    )


def _points(record: Mapping[str, Any]) -> str:
    return f"{amount(record['score'])} of {amount(record['max_score'])} points"


def _sandbox(record: Mapping[str, Any]) -> str:
    said = [
        f"{level['name']}"
        + (f" (not contained: {', '.join(level['not_contained'])})" * bool(level["not_contained"]))
        for level in record["sandbox"]
    ]
    return f"sandbox: {'; '.join(said) or 'nothing ran'}"


def _link(student: str) -> str:
    return f'<a href="students/{quote(os.fsencode(file_stem(student)))}.html">{_text(student)}</a>'


def _text(text: str) -> str:
    """What a student may have written, as HTML."""
    return escape(clean(text))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], marked_up: bool = False) -> str:
    """The last column holds numbers."""
    last = len(head) - 1

    def row(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="number"' if place == last else "" for place in range(len(cells))]
        return f"<tr>{''.join(f'<{tag}{kind}>{cell}</{tag}>' for kind, cell in zip(kinds, cells, strict=True))}</tr>"

    body = rows if marked_up else [[_text(cell) for cell in cells] for cells in rows]
    return f'<table class="rows">{row(head, "th")}{"".join(row(cells, "td") for cells in body)}</table>'


def _page(title: str, parts: Sequence[str]) -> str:
    head = f'<meta charset="utf-8"><title>{_text(title)}</title><style>{STYLE}</style>'
    content = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en">{head}<h1>{_text(title)}</h1>\n{content}\n</html>\n'
