"""A student's record: what was found, what it is worth, and the files that say so.

Each file is whole or not there. The JSON comes last: where it is, the student is done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lessonlib.checks.junit import to_junit
from lessonlib.checks.report import Result
from lessonlib.files import write_whole
from lessonlib.grading.names import file_stem
from lessonlib.grading.overrides import Override
from lessonlib.grading.pages import student_page
from lessonlib.grading.points import points
from lessonlib.grading.submissions import Submission

STUDENTS = "students"

Record = dict[str, Any]


def make_record(
    submission: Submission, answers: Sequence[Mapping[str, Any]], weights: Mapping[str, float], version: str
) -> Record:
    """What is stored of one student; `answers` are what `job.run` gave for the parts of the submission."""
    results = sorted(
        (result for answer in answers for result in answer["results"]), key=lambda result: result["id"]
    )
    score, most = points(results, weights)
    sandbox = {level["name"]: level for answer in answers for level in answer["sandbox"]}
    return {
        "student": submission.student,
        "score": score,
        "max_score": most,
        "override": "",
        "problem": submission.problem,
        "notes": list(submission.notes),
        "submitted": submission.submitted,
        "digest": submission.digest,
        "course": version,
        "sandbox": [sandbox[name] for name in sorted(sandbox)],
        "results": results,
    }


def overridden(record: Record, given: Override | None, weights: Mapping[str, float]) -> Record:
    """The record with points that were given by hand, or without those of before."""
    score, most = points(record["results"], weights, given.tasks if given else {})
    if given and given.score is not None:
        score = given.score
    return {**record, "score": score, "max_score": most, "override": given.sentence if given else ""}


def write_record(out: Path, record: Record) -> Record:
    """The student's page, JUnit file and JSON, in this order. Raises `CourseError` where they cannot be written.

    The JSON alone has the seed: it is for the instructor, the others are for the student.

    Returns the record as `read_record` will.
    """
    student = record["student"]
    results = [Result.from_dict(result).without_seed() for result in record["results"]]
    files = {
        "html": student_page(record, results),
        "xml": to_junit(results, student),
        "json": json.dumps(record, indent=1) + "\n",
    }
    for ending, content in files.items():
        write_whole(_path(out, student, ending), content)
    written: Record = json.loads(files["json"])
    return written


def read_record(out: Path, student: str) -> Record | None:
    """What was stored of a student, or None."""
    try:
        record = json.loads(_path(out, student, "json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("student") == student else None


def _path(out: Path, student: str, ending: str) -> Path:
    return out / STUDENTS / f"{file_stem(student)}.{ending}"
