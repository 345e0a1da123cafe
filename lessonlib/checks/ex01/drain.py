"""ex01.3: the steps of continuous batching, and those at the end with an empty slot."""

from __future__ import annotations

from typing import Any

from lessonlib.checks.cases import lengths_and_slots, smaller_lengths
from lessonlib.checks.replay import whole_ride
from lessonlib.checks.spec import Given, Task, count, parts, promise, whole
from lessonlib.simulation.slots import CONTINUOUS, ride
from lessonlib.workload import Workload


def _expected_drain(lengths: list[int], slots: int) -> tuple[int, int]:
    trace = ride(Workload.from_lengths(lengths), slots)
    return trace.num_steps, int((trace.steps["running"] < slots).sum())


def _read_drain(answer: Any, given: Given) -> tuple[int, int]:
    steps, draining = parts(answer, ("steps", "draining"))
    return whole(steps, "steps"), whole(draining, "draining")


@promise("utilization is never above one")
def _work_fits(given: Given, answer: tuple[int, int], expected: tuple[int, int]) -> bool:
    return given["slots"] * answer[0] >= sum(given["lengths"])


@promise("the ride lasts at least as long as its longest request")
def _longest_fits(given: Given, answer: tuple[int, int], expected: tuple[int, int]) -> bool:
    return answer[0] >= max(given["lengths"])


@promise("a freed slot is refilled for the next step")
def _nobody_waits_beside_a_free_slot(
    given: Given, answer: tuple[int, int], expected: tuple[int, int]
) -> bool:
    return answer[0] <= expected[0]


@promise("requests board whole, in the order in which they wait")
def _board_whole_in_order(given: Given, answer: tuple[int, int], expected: tuple[int, int]) -> bool:
    return answer[0] >= expected[0]


@promise("the drain is every step that has an empty slot")
def _drain_counted(given: Given, answer: tuple[int, int], expected: tuple[int, int]) -> bool:
    return answer[1] == expected[1]


def _explain_drain(given: Given, expected: tuple[int, int]) -> str:
    return f"{count(expected[0], 'step')}, {expected[1]:,} of them with an empty slot"


DRAIN = Task(
    id="ex01.3",
    title="the drain",
    function="drain",
    cases=lengths_and_slots,
    smaller=smaller_lengths,
    expected=_expected_drain,
    read=_read_drain,
    properties=(
        _work_fits,
        _longest_fits,
        _nobody_waits_beside_a_free_slot,
        _board_whole_in_order,
        _drain_counted,
    ),
    explain=_explain_drain,
    rides=whole_ride(CONTINUOUS),
    hints=(
        "You need not ride step by step. From which step on is each slot free?",
        "Keep one number for each slot, 0 at first. The next request takes the slot that is free first, and "
        "makes that number larger by its length.",
        "After the last request the ride takes max(free_at) steps. The first slot to run dry does so at "
        "min(free_at), and from there on the car drains: the second answer is the difference.",
    ),
)
