"""The class in tables: grades in nbgrader's and in Canvas's columns, the commonest mistakes, a histogram."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from lessonlib.checks import EXERCISES
from lessonlib.checks.report import CAN_BE_READ, ERROR, FAILED, HAS_FUNCTION, IS_THERE, NOT_WRITTEN, SAID
from lessonlib.checks.sandbox.cleaning import clean
from lessonlib.grading.layouts import CANVAS, MOODLE, Handin, LeftOut
from lessonlib.grading.points import points_by_task
from lessonlib.grading.roster import CANVAS_COLUMNS, MOODLE_COLUMNS, POINTS_POSSIBLE, Roster
from lessonlib.grading.similarity import Pair
from lessonlib.viz import style

# What `nbgrader export` writes (nbgrader 0.9).
NBGRADER = (
    *("assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email"),
    *("raw_score", "late_submission_penalty", "score", "max_score"),
)
MOODLE_GRADE, MOODLE_MOST = "Grade", "Maximum Grade"
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


@dataclass(frozen=True)
class Graded:
    """A class with its grades, for the tables.

    Attributes:
        records: in order of name.
        handins: what they handed in.
        assignment: its name.
        layout: how the class was handed over.
        roster: as the platform exports it, or None.
        rows: student → row of the roster, for those that have one.
    """

    records: Sequence[Record]
    handins: Sequence[Handin]
    assignment: str
    layout: str
    roster: Roster | None = None
    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def of_platform(self, platform: str) -> list[tuple[Record, Mapping[str, str]]]:
        """(record, what the platform knows of the student) of those who can be in its table.

        Without a roster that is their names and numbers; with one, only its own students are there.
        """
        if self.roster is not None and self.roster.platform == platform:
            return [
                (each, self.rows[each["student"]]) for each in self.records if each["student"] in self.rows
            ]
        known = {handin.student: handin for handin in self.handins}
        return [(each, _known(known[each["student"]], self.layout, platform)) for each in self.records]


def _known(handin: Handin, layout: str, platform: str) -> dict[str, str]:
    """A row of the platform's, from what the submission's name tells."""
    number = handin.platform_id if layout == platform else ""
    name = handin.name or handin.student
    if platform == MOODLE:
        return {"Identifier": f"Participant {number}" if number else "", "Full name": name}
    return {"Student": name, "ID": number, "SIS Login ID": "" if number else handin.student}


def nbgrader_csv(graded: Graded) -> str:
    """One row a student. Penalties are the learning platform's business: here they are 0."""
    rows = [
        {
            "assignment": graded.assignment,
            "timestamp": record["submitted"],
            "student_id": record["student"],
            "raw_score": amount(record["score"]),
            "late_submission_penalty": "0",
            "score": amount(record["score"]),
            "max_score": amount(record["max_score"]),
        }
        for record in graded.records
    ]
    return _csv(NBGRADER, rows)


def canvas_csv(graded: Graded) -> str:
    """One row a student, below one with the points there were; on the scale of the gradebook's column, if there is one.

    Without a roster the student's name stands where Canvas looks for a login, unless Canvas's number is known.
    """
    own = graded.roster.assignment(graded.assignment) if graded.roster else None
    column = own or graded.assignment
    possible = graded.roster.points_possible.get(column, "") if graded.roster else ""
    most = possible or amount(max((record["max_score"] for record in graded.records), default=0.0))
    rows = [{"Student": POINTS_POSSIBLE, column: most}]
    for record, known in graded.of_platform(CANVAS):
        rows.append(
            {**{name: known.get(name, "") for name in CANVAS_COLUMNS}, column: _on_scale(record, most)}
        )
    return _csv((*CANVAS_COLUMNS, column), rows)


def moodle_csv(graded: Graded) -> str:
    """Moodle's grading worksheet with the grades filled in, on the scale that the worksheet has."""
    rows = []
    for record, known in graded.of_platform(MOODLE):
        most = known.get(MOODLE_MOST) or amount(record["max_score"])
        rows.append({**known, MOODLE_GRADE: _on_scale(record, most), MOODLE_MOST: most})
    columns = graded.roster.columns if graded.roster and graded.roster.platform == MOODLE else MOODLE_COLUMNS
    missing = [name for name in (MOODLE_GRADE, MOODLE_MOST) if name not in columns]
    return _csv((*columns, *missing), rows)


def _on_scale(record: Record, most: str) -> str:
    try:
        scale = float(most.replace(",", "."))
    except ValueError:
        return amount(record["score"])
    return amount(round(scale * record["score"] / record["max_score"], 2)) if record["max_score"] else "0"


def tasks_csv(graded: Graded, weights: Mapping[str, float]) -> str:
    """Everyone's points a task, empty where it was not checked here; and the seed of their inputs."""
    tasks = [task for task in FILES if any(task in _tasks(record) for record in graded.records)]
    known = {handin.student: handin for handin in graded.handins}
    rows = []
    for record in graded.records:
        by_task = points_by_task(record["results"], weights)
        seeds = [result["seed"] for result in record["results"]]
        rows.append(
            {
                "student": record["student"],
                "platform_id": known[record["student"]].platform_id,
                "score": amount(record["score"]),
                "max_score": amount(record["max_score"]),
                **{task: amount(by_task[task]) for task in tasks if task in by_task},
                "override": record["override"],
                "seed": seeds[0] if seeds else "",
            }
        )
    return _csv(("student", "platform_id", "score", "max_score", *tasks, "override", "seed"), rows)


def _tasks(record: Record) -> set[str]:
    return {result["id"] for result in record["results"]}


def left_out_csv(left_out: Iterable[LeftOut]) -> str:
    return _csv(("kind", "name", "reason"), [vars(each) for each in left_out])


def similar_csv(pairs: Iterable[Pair]) -> str:
    rows = [{**vars(pair), "share": f"{pair.share:.2f}"} for pair in pairs]
    return _csv(("exercise", "first", "second", "share", "shingles"), rows)


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
        return str(result["property"])
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
