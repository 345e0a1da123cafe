"""What both tasks about utilization share: how the answer is read, and the bound that it keeps."""

from __future__ import annotations

from typing import Any

from lessonlib.checks.spec import Given, number, promise

ROUNDING = 1e-9


def read_utilization(answer: Any, given: Given) -> float:
    return number(answer, "The utilization")


@promise("utilization is never above one")
def never_above_one(given: Given, answer: float, expected: float) -> bool:
    return answer <= 1 + ROUNDING
