"""ex02.3: static batching, made of `refill` and `step`."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np

from lessonlib.checks.cases import lengths_and_slots, smaller_lengths
from lessonlib.checks.ex02.car import LOOP_PARTS
from lessonlib.checks.replay import whole_ride
from lessonlib.checks.spec import Given, Parts, Task, close, count, number, parts, promise, whole
from lessonlib.simulation.slots import STATIC, ride
from lessonlib.workload import Workload


def _static_rides(rng: Random) -> Iterator[Given]:
    for given in lengths_and_slots(rng):
        yield _with_array(given)


def _smaller_static_rides(given: Given) -> Iterator[Given]:
    for smaller in smaller_lengths({**given, "lengths": given["lengths"].tolist()}):
        yield _with_array(smaller)


def _with_array(given: Given) -> Given:
    return {**given, "lengths": np.array(given["lengths"])}


def _expected_static(lengths: np.ndarray, slots: int) -> tuple[int, float]:
    trace = ride(Workload.from_lengths(lengths), slots, STATIC)
    return trace.num_steps, trace.utilization


def _read_static(answer: Any, given: Given) -> tuple[int, float]:
    steps, utilization = parts(answer, ("steps", "utilization"))
    return whole(steps, "steps"), number(utilization, "utilization")


@promise("nobody boards until the car is empty")
def _board_an_empty_car(given: Given, answer: tuple[int, float], expected: tuple[int, float]) -> bool:
    return answer[0] >= expected[0]


@promise("the next batch boards as soon as the car is empty")
def _board_at_once(given: Given, answer: tuple[int, float], expected: tuple[int, float]) -> bool:
    return answer[0] <= expected[0]


@promise("utilization is tokens given over slots times steps")
def _utilization_follows(given: Given, answer: tuple[int, float], expected: tuple[int, float]) -> bool:
    return close(answer[1], expected[1])


def _explain_static(given: Given, expected: tuple[int, float]) -> str:
    tokens = count(int(given["lengths"].sum()), "token")
    return f"utilization is {tokens} ÷ ({count(given['slots'], 'slot')} × {count(expected[0], 'step')})"


def _batches_and_steps(given: Given, expected: tuple[int, float]) -> tuple[int, int]:
    """A batch is one call of `refill` at least, and each step one of `step`."""
    return -(-len(given["lengths"]) // given["slots"]), expected[0]


STATIC_BATCHING = Task(
    id="ex02.3",
    title="static batching with the same parts",
    function="static_batching",
    cases=_static_rides,
    smaller=_smaller_static_rides,
    expected=_expected_static,
    read=_read_static,
    properties=(
        _board_an_empty_car,
        _board_at_once,
        _utilization_follows,
    ),
    explain=_explain_static,
    rides=whole_ride(STATIC),
    built_on=("ex02.1", "ex02.2"),
    made_of=Parts("the ride is made of refill and step", LOOP_PARTS, _batches_and_steps),
    hints=(
        "Both parts are written. The only new question is when `refill` may be called.",
        "Begin with an empty car and everyone on the waitlist. While anybody waits or rides, call `step`; call "
        "`refill` before it, if the whole car is empty.",
        "if (occupant == NOBODY).all(): refill. Then step, count one step and its tokens. At the end "
        "(steps, tokens / (slots * steps)).",
    ),
)
