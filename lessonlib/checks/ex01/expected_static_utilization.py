"""ex01.2: the utilization that static batching tends to, for lengths drawn evenly from a range."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from lessonlib.checks.ex01.utilization import never_above_one, read_utilization
from lessonlib.checks.spec import Given, Task, close, promise
from lessonlib.utilization import expected_static_utilization, expected_uniform_maximum


def _ranges(rng: Random) -> Iterator[Given]:
    for high in range(1, 5):
        for low in range(high, 0, -1):
            for slots in (1, 2, 3):
                yield {"low": low, "high": high, "slots": slots}
    for _ in range(20):
        low = rng.randint(1, 400)
        yield {"low": low, "high": rng.randint(low, 1000), "slots": rng.randint(1, 256)}


def _smaller_ranges(given: Given) -> Iterator[Given]:
    low, high, slots = given["low"], given["high"], given["slots"]
    shorter = {(1, high - low + 1), (low, (low + high) // 2), (low, high - 1), (low - 1, high - 1)}
    for down, up in sorted(shorter - {(low, high)}):
        if 1 <= down <= up:
            yield {"low": down, "high": up, "slots": slots}
    for fewer in sorted({1, slots // 2, slots - 1} - {0, slots}):
        yield {"low": low, "high": high, "slots": fewer}


@promise("lengths that cannot vary waste nothing")
def _nothing_varies(given: Given, answer: float, expected: float) -> bool:
    return given["low"] < given["high"] or close(answer, 1.0)


@promise("one slot never waits")
def _one_slot(given: Given, answer: float, expected: float) -> bool:
    return given["slots"] > 1 or close(answer, 1.0)


@promise("the expected longest is exact, for whole lengths")
def _exact(given: Given, answer: float, expected: float) -> bool:
    return close(answer, expected)


def _explain_expected(given: Given, expected: float) -> str:
    mean = (given["low"] + given["high"]) / 2
    return f"mean length {mean:g} ÷ expected longest {expected_uniform_maximum(**given):.10g}"


EXPECTED_STATIC_UTILIZATION = Task(
    id="ex01.2",
    title="expected utilization of uniform lengths",
    function="expected_static_utilization",
    cases=_ranges,
    smaller=_smaller_ranges,
    expected=expected_static_utilization,
    read=read_utilization,
    properties=(
        never_above_one,
        _nothing_varies,
        _one_slot,
        _exact,
    ),
    explain=_explain_expected,
    hints=(
        "The numerator is the mean length. What is the chance that the longest of `slots` lengths is at most n?",
        "All are at most n with probability ((n - low + 1) / (high - low + 1)) ** slots. The longest is exactly "
        "n where all are at most n, but not all at most n - 1.",
        "Add up n * (P(all at most n) - P(all at most n - 1)) for n from low to high: that is the expected "
        "longest. Divide (low + high) / 2 by it.",
    ),
)
