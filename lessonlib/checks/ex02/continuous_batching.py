"""ex02.4: continuous batching with arrivals, made of `refill` and `step`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any

import numpy as np

from lessonlib.checks.cases import DRAWN, without
from lessonlib.checks.ex02.car import LOOP_PARTS
from lessonlib.checks.replay import whole_ride
from lessonlib.checks.spec import Given, Parts, Task, promise, whole_list
from lessonlib.simulation.slots import CONTINUOUS, ride
from lessonlib.workload import Workload


def _rides_with_arrivals(rng: Random) -> Iterator[Given]:
    """Every ride of up to 3 short requests in up to 2 slots, smallest first; then longer ones as drawn."""
    small = [
        _arriving(list(lengths), [0, *gaps], slots)
        for many in (1, 2, 3)
        for lengths in product((1, 2), repeat=many)
        for gaps in product((0, 1, 3), repeat=many - 1)
        for slots in (1, 2)
    ]
    yield from sorted(small, key=_size_with_arrivals)
    for _ in range(DRAWN):
        many, slots = rng.randint(4, 40), rng.randint(1, 12)
        longest, widest = rng.choice((4, 12, 60)), rng.choice((1, 4, 20))
        gaps = [0] + [rng.randint(0, widest) for _ in range(many - 1)]
        yield _arriving([rng.randint(1, longest) for _ in gaps], gaps, slots)


def _arriving(lengths: list[int], gaps: list[int], slots: int) -> Given:
    """Each request arrives so many steps after the one before; the first one as the clock starts."""
    return {"lengths": np.array(lengths), "arrivals": np.cumsum([0, *gaps[1:]]), "slots": slots}


def _size_with_arrivals(given: Given) -> tuple[int, int, int]:
    return len(given["lengths"]), int(given["lengths"].sum() + given["arrivals"][-1]), given["slots"]


def _smaller_rides_with_arrivals(given: Given) -> Iterator[Given]:
    """One request less, one slot less, one request shorter, or one that comes sooner after the one before."""
    lengths, slots = given["lengths"].tolist(), given["slots"]
    gaps = np.diff(given["arrivals"], prepend=0).tolist()
    for index in range(len(lengths) if len(lengths) > 1 else 0):
        yield _arriving(without(lengths, index), without(gaps, index), slots)
    if slots > 1:
        yield _arriving(lengths, gaps, slots - 1)
    for index in range(len(lengths)):
        for shorter in {1, lengths[index] - 1} - {0, lengths[index]}:
            yield _arriving([*lengths[:index], shorter, *lengths[index + 1 :]], gaps, slots)
        for sooner in {0, gaps[index] - 1} - {-1, gaps[index]}:
            yield _arriving(lengths, [*gaps[:index], sooner, *gaps[index + 1 :]], slots)


def _expected_ttft(lengths: np.ndarray, arrivals: np.ndarray, slots: int) -> list[int]:
    trace = ride(Workload.from_lengths(lengths, arrival_time=arrivals), slots, CONTINUOUS)
    return trace.first_token_time().astype(int).tolist()


def _read_ttft(answer: Any, given: Given) -> list[int]:
    return whole_list(answer, "ttft", len(given["lengths"]), each="request")


def _at(given: Given, ttft: list[int]) -> list[int]:
    """The clock as each request gets its first token."""
    return (np.array(ttft) + given["arrivals"]).tolist()


@promise("a token is there when its step ends")
def _end_of_step(given: Given, answer: list[int], expected: list[int]) -> bool:
    return len(answer) > 1 or answer == expected


@promise("the time counts from the request's own arrival")
def _from_arrival(given: Given, answer: list[int], expected: list[int]) -> bool:
    """Looks at rides in which everybody rides alone: elsewhere a wait could look the same."""
    gaps = np.diff(given["arrivals"])
    rides_alone = len(gaps) > 0 and (gaps >= given["lengths"][:-1]).all()
    return not rides_alone or answer != _at(given, expected)


@promise("nobody boards before they have arrived")
def _after_arrival(given: Given, answer: list[int], expected: list[int]) -> bool:
    return min(answer) > 0


@promise("first come, first served")
def _in_order(given: Given, answer: list[int], expected: list[int]) -> bool:
    return _at(given, answer) == sorted(_at(given, answer))


@promise("no more ride at once than there are slots")
def _no_more_than_slots(given: Given, answer: list[int], expected: list[int]) -> bool:
    return all(there >= right for there, right in zip(answer, expected, strict=True))


@promise("a free slot is taken for the next step while anybody waits")
def _taken_at_once(given: Given, answer: list[int], expected: list[int]) -> bool:
    return answer == expected


def _steps_in_which_some_board(given: Given, expected: list[int]) -> tuple[int, int]:
    """Each of them needs both parts."""
    boarding = len(set(_at(given, expected)))
    return boarding, boarding


CONTINUOUS_BATCHING = Task(
    id="ex02.4",
    title="the continuous loop, with arrivals",
    function="continuous_batching",
    cases=_rides_with_arrivals,
    smaller=_smaller_rides_with_arrivals,
    expected=_expected_ttft,
    read=_read_ttft,
    properties=(
        _end_of_step,
        _from_arrival,
        _after_arrival,
        _in_order,
        _no_more_than_slots,
        _taken_at_once,
    ),
    rides=whole_ride(CONTINUOUS),
    built_on=("ex02.1", "ex02.2"),
    made_of=Parts("the loop is made of refill and step", LOOP_PARTS, _steps_in_which_some_board),
    hints=(
        "It is the loop of ex02.3 without the question whether the car is empty. What is new is the clock: who is on "
        "the waitlist at each step?",
        "Begin with an empty waitlist and a clock at 0. Before each step, put those with arrivals <= clock on the "
        "waitlist, call `refill`, and see whose slot has changed. Then `step`, and the clock is one later.",
        "Compare the occupants before and after `refill`: occupant[occupant != before] are the ids that boarded. "
        "Their first token is there at clock + 1. Go on while anybody waits or is still to come; at the end take "
        "away the arrivals.",
    ),
)
