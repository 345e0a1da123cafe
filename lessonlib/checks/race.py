"""Times a student's function beside a reference: each in a process of its own, lap by lap in turn.

What travels is the ratio of two medians of one run. Seconds are the card's own and say nothing elsewhere.
"""

from __future__ import annotations

import statistics
from typing import Any

from lessonlib.checks.sandbox.process import Child, Reply
from lessonlib.checks.spec import Given, Speed
from lessonlib.errors import CourseError

LAPS = 15


class Stopped(Exception):  # noqa: N818 - says something of the student's function, and is always caught
    """The student's function gave no answer; `reply` says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


def race(
    student: Child, reference: Child, function: str, speed: Speed, given: Given, seconds: float
) -> float | None:
    """The student's speed as a share of the reference's; None where its answer is not the reference's.

    Raises `Stopped` where the student's function does not come back, `CourseError` where the reference does not.
    """

    def ask(child: Child, through: str, *arguments: Any) -> Any:
        reply = child.call(function, arguments, seconds, through)
        if not reply.ended and reply.raised is None:
            return reply.answer
        if child is student:
            raise Stopped(reply)
        raise CourseError(f"the course's own kernel could not be timed: {reply.ended or reply.raised}")

    answers = [ask(child, "warm_up", *given.values()) for child in (student, reference)]
    if not speed.close(*answers):
        return None
    laps = [[ask(child, "lap") for child in (student, reference)] for _ in range(LAPS)]
    own, other = zip(*laps, strict=True)
    return float(statistics.median(other) / statistics.median(own))
