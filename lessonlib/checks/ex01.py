"""What exercise 01 must do: utilization in plain Python."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from lessonlib.checks.replay import whole_ride
from lessonlib.checks.rides import lengths_and_slots, smaller_lengths
from lessonlib.checks.spec import Exercise, Given, Property, Task, close, count, number, parts, whole
from lessonlib.simulation.slots import CONTINUOUS, STATIC, ride
from lessonlib.utilization import (
    expected_static_utilization,
    expected_uniform_maximum,
    static_steps,
    static_utilization,
)
from lessonlib.workload import Workload

ROUNDING = 1e-9


def _read_utilization(answer: Any, given: Given) -> float:
    return number(answer, "The utilization")


def _never_above_one(given: Given, answer: float, due: float) -> bool:
    return answer <= 1 + ROUNDING


# ----- ex01.1 -----


def _longest_decides(given: Given, answer: float, due: float) -> bool:
    """Looks at one full batch only; the other two look at what goes beyond it."""
    return len(given["lengths"]) != given["slots"] or close(answer, due)


def _unboarded_slots_count(given: Given, answer: float, due: float) -> bool:
    return len(given["lengths"]) >= given["slots"] or close(answer, due)


def _batch_after_batch(given: Given, answer: float, due: float) -> bool:
    return close(answer, due)


def _explain_static(given: Given, due: float) -> str:
    slots = given["slots"]
    steps = static_steps(given["lengths"], slots)
    return f"{count(sum(given['lengths']), 'token')} ÷ ({count(slots, 'slot')} × {count(steps, 'step')})"


STATIC_UTILIZATION = Task(
    id="ex01.1",
    title="static utilization",
    function="static_utilization",
    cases=lengths_and_slots,
    smaller=smaller_lengths,
    due=static_utilization,
    read=_read_utilization,
    properties=(
        Property("utilization is never above one", _never_above_one),
        Property("a batch lasts as long as its longest request", _longest_decides),
        Property("a slot that nobody boarded is paid for as well", _unboarded_slots_count),
        Property("the next batch boards when the last of this one has left", _batch_after_batch),
    ),
    explain=_explain_static,
    rides=whole_ride(STATIC),
)


# ----- ex01.2 -----


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


def _nothing_varies(given: Given, answer: float, due: float) -> bool:
    return given["low"] < given["high"] or close(answer, 1.0)


def _one_slot(given: Given, answer: float, due: float) -> bool:
    return given["slots"] > 1 or close(answer, 1.0)


def _exact(given: Given, answer: float, due: float) -> bool:
    return close(answer, due)


def _explain_expected(given: Given, due: float) -> str:
    mean = (given["low"] + given["high"]) / 2
    return f"mean length {mean:g} ÷ expected longest {expected_uniform_maximum(**given):.10g}"


EXPECTED_STATIC_UTILIZATION = Task(
    id="ex01.2",
    title="expected utilization of uniform lengths",
    function="expected_static_utilization",
    cases=_ranges,
    smaller=_smaller_ranges,
    due=expected_static_utilization,
    read=_read_utilization,
    properties=(
        Property("utilization is never above one", _never_above_one),
        Property("lengths that cannot vary waste nothing", _nothing_varies),
        Property("one slot never waits", _one_slot),
        Property("the expected longest is exact, for whole lengths", _exact),
    ),
    explain=_explain_expected,
)


# ----- ex01.3 -----


def _due_drain(lengths: list[int], slots: int) -> tuple[int, int]:
    trace = ride(Workload.from_lengths(lengths), slots)
    return trace.num_steps, int((trace.steps["running"] < slots).sum())


def _read_drain(answer: Any, given: Given) -> tuple[int, int]:
    steps, draining = parts(answer, ("steps", "draining"))
    return whole(steps, "steps"), whole(draining, "draining")


def _work_fits(given: Given, answer: tuple[int, int], due: tuple[int, int]) -> bool:
    return given["slots"] * answer[0] >= sum(given["lengths"])


def _longest_fits(given: Given, answer: tuple[int, int], due: tuple[int, int]) -> bool:
    return answer[0] >= max(given["lengths"])


def _nobody_waits_beside_a_free_slot(given: Given, answer: tuple[int, int], due: tuple[int, int]) -> bool:
    return answer[0] <= due[0]


def _board_whole_in_order(given: Given, answer: tuple[int, int], due: tuple[int, int]) -> bool:
    return answer[0] >= due[0]


def _drain_counted(given: Given, answer: tuple[int, int], due: tuple[int, int]) -> bool:
    return answer[1] == due[1]


def _explain_drain(given: Given, due: tuple[int, int]) -> str:
    return f"{count(due[0], 'step')}, {due[1]:,} of them with an empty slot"


DRAIN = Task(
    id="ex01.3",
    title="the drain",
    function="drain",
    cases=lengths_and_slots,
    smaller=smaller_lengths,
    due=_due_drain,
    read=_read_drain,
    properties=(
        Property("utilization is never above one", _work_fits),
        Property("the ride lasts at least as long as its longest request", _longest_fits),
        Property("a freed slot is refilled for the next step", _nobody_waits_beside_a_free_slot),
        Property("requests board whole, in the order in which they wait", _board_whole_in_order),
        Property("the drain is every step that has an empty slot", _drain_counted),
    ),
    explain=_explain_drain,
    rides=whole_ride(CONTINUOUS),
)

EX01 = Exercise("ex01", (STATIC_UTILIZATION, EXPECTED_STATIC_UTILIZATION, DRAIN))
