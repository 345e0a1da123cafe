"""ex02.1: waiting requests take the free slots."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any

import numpy as np

from lessonlib.checks.cases import without
from lessonlib.checks.ex02.car import Car, car_rides, fewer_slots, free_slots, read_car, taken_slots
from lessonlib.checks.spec import Given, Task, promise, whole_list
from lessonlib.simulation.slots import NOBODY, SlotScheduler
from lessonlib.workload import Workload


def _refills(rng: Random) -> Iterator[Given]:
    """Every pattern of up to 3 slots with up to 3 waiting; then larger cars with ids in any order."""
    for slots, waiting in product((1, 2, 3), (0, 1, 2, 3)):
        for pattern in product((False, True), repeat=slots):
            yield _car_to_refill(rng, pattern, list(range(sum(pattern) + waiting)))
    for _ in range(30):
        pattern = tuple(rng.random() < 0.5 for _ in range(rng.randint(1, 10)))
        ids = list(range(sum(pattern) + rng.randint(0, 12)))
        rng.shuffle(ids)
        yield _car_to_refill(rng, pattern, ids)


def _car_to_refill(rng: Random, pattern: tuple[bool, ...], ids: list[int]) -> Given:
    """A car with someone in each slot where `pattern` says so; the ids that are left over wait, in order."""
    lengths = [rng.randint(1, 9) for _ in ids]
    occupant, remaining = [NOBODY] * len(pattern), [0] * len(pattern)
    waitlist = list(ids)
    for slot, taken in enumerate(pattern):
        if taken:
            occupant[slot] = waitlist.pop(0)
            remaining[slot] = rng.randint(1, lengths[occupant[slot]])
    return {
        "occupant": np.array(occupant),
        "remaining": np.array(remaining),
        "waitlist": waitlist,
        "lengths": np.array(lengths, np.int64),
    }


def _smaller_refills(given: Given) -> Iterator[Given]:
    yield from fewer_slots(given)
    for index in range(len(given["waitlist"])):
        yield {**given, "waitlist": without(given["waitlist"], index)}
    yield from _renumbered(given)


def _renumbered(given: Given) -> Iterator[Given]:
    """The same car without the requests that neither ride nor wait, where there are any."""
    used = sorted([*given["occupant"][taken_slots(given)].tolist(), *given["waitlist"]])
    if len(used) < len(given["lengths"]):
        new = {NOBODY: NOBODY} | {old: index for index, old in enumerate(used)}
        yield {
            "occupant": np.array([new[old] for old in given["occupant"].tolist()]),
            "remaining": given["remaining"],
            "waitlist": [new[old] for old in given["waitlist"]],
            "lengths": given["lengths"][used],
        }


def _expected_refill(
    occupant: np.ndarray, remaining: np.ndarray, waitlist: list[int], lengths: np.ndarray
) -> Car:
    """What `SlotScheduler.admit` does, for which those who wait are requests 0, 1, 2, …"""
    if not waitlist:
        return Car(occupant.tolist(), remaining.tolist(), [])
    scheduler = SlotScheduler(Workload.from_lengths(lengths[waitlist]), len(occupant))
    scheduler.occupant[:], scheduler.remaining[:] = occupant, remaining
    scheduler.admit()
    boarded = (occupant == NOBODY) & (scheduler.occupant != NOBODY)
    scheduler.occupant[boarded] = np.array(waitlist)[scheduler.occupant[boarded]]
    return Car(scheduler.occupant.tolist(), scheduler.remaining.tolist(), waitlist[scheduler.next_request :])


def _read_refill(answer: Any, given: Given) -> Car:
    return read_car(answer, given, "waitlist", whole_list)


def _boarded(given: Given, answer: Car) -> list[int]:
    """Who sits in the slots that were free, lowest slot first."""
    return [answer.occupant[slot] for slot in free_slots(given) if answer.occupant[slot] != NOBODY]


@promise("whoever is on board keeps their slot")
def _keep_their_slot(given: Given, answer: Car, expected: Car) -> bool:
    return all(
        answer.occupant[slot] == expected.occupant[slot]
        and answer.remaining[slot] == expected.remaining[slot]
        for slot in taken_slots(given)
    )


@promise("a freed slot is refilled for the next step")
def _refilled(given: Given, answer: Car, expected: Car) -> bool:
    return len(_boarded(given, answer)) >= len(_boarded(given, expected))


@promise("who has boarded no longer waits")
def _no_longer_waits(given: Given, answer: Car, expected: Car) -> bool:
    return sorted(_boarded(given, answer) + answer.rest) == sorted(given["waitlist"])


@promise("first come, first served")
def _first_come(given: Given, answer: Car, expected: Car) -> bool:
    return (
        sorted(_boarded(given, answer)) == sorted(_boarded(given, expected)) and answer.rest == expected.rest
    )


@promise("the lowest free slot is filled first")
def _lowest_first(given: Given, answer: Car, expected: Car) -> bool:
    return answer.occupant == expected.occupant


@promise("a new request has its whole length to go")
def _whole_length(given: Given, answer: Car, expected: Car) -> bool:
    return answer.remaining == expected.remaining


REFILL = Task(
    id="ex02.1",
    title="refill the free slots",
    function="refill",
    cases=_refills,
    smaller=_smaller_refills,
    expected=_expected_refill,
    read=_read_refill,
    properties=(
        _keep_their_slot,
        _refilled,
        _no_longer_waits,
        _first_come,
        _lowest_first,
        _whole_length,
    ),
    rides=car_rides,
    hints=(
        "Two things must match: how many slots are free, and how many people wait. The smaller number boards.",
        "np.flatnonzero(occupant == NOBODY) names the free slots, lowest first. Copy the arrays before you write.",
        "boarding = waitlist[:len(free)]; slots = free[:len(boarding)]; write boarding into occupant[slots] and "
        "lengths[boarding] into remaining[slots] of the copies; the rest of the waitlist still waits.",
    ),
)
