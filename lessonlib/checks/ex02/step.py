"""ex02.2: one decoding step."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any

import numpy as np

from lessonlib.checks.ex02.car import Car, car_rides, fewer_slots, free_slots, read_car, taken_slots
from lessonlib.checks.spec import Given, Task, promise, whole
from lessonlib.simulation.slots import NOBODY, SlotScheduler
from lessonlib.workload import Workload


def _steps(rng: Random) -> Iterator[Given]:
    """Every car of up to 3 slots with up to 2 tokens to go in each; then larger ones."""
    for slots in (1, 2, 3):
        for remaining in sorted(product((0, 1, 2), repeat=slots), key=sum):
            yield _car_to_step(list(remaining), list(range(slots)))
    for _ in range(30):
        slots = rng.randint(1, 12)
        yield _car_to_step([rng.choice((0, 1, 2, 9)) for _ in range(slots)], rng.sample(range(40), slots))


def _car_to_step(remaining: list[int], ids: list[int]) -> Given:
    occupant = [request if left else NOBODY for request, left in zip(ids, remaining, strict=True)]
    return {"occupant": np.array(occupant), "remaining": np.array(remaining)}


def _expected_step(occupant: np.ndarray, remaining: np.ndarray) -> Car:
    """What `SlotScheduler.step` and then `release` do."""
    scheduler = SlotScheduler(Workload.from_lengths([1]), len(occupant))
    scheduler.occupant[:], scheduler.remaining[:] = occupant, remaining
    scheduler.step()
    scheduler.release()
    return Car(scheduler.occupant.tolist(), scheduler.remaining.tolist(), int((occupant != NOBODY).sum()))


def _read_step(answer: Any, given: Given) -> Car:
    return read_car(answer, given, "tokens", whole)


@promise("everyone on board gets one token")
def _one_token_each(given: Given, answer: Car, expected: Car) -> bool:
    return all(answer.remaining[slot] == expected.remaining[slot] for slot in taken_slots(given))


@promise("an empty slot stays empty")
def _empty_stays_empty(given: Given, answer: Car, expected: Car) -> bool:
    return all(answer.occupant[slot] == NOBODY and answer.remaining[slot] == 0 for slot in free_slots(given))


@promise("whoever has their last token leaves the slot free")
def _last_token_leaves(given: Given, answer: Car, expected: Car) -> bool:
    return all(
        answer.occupant[slot] == NOBODY for slot in taken_slots(given) if expected.remaining[slot] == 0
    )


@promise("whoever still wants tokens stays")
def _others_stay(given: Given, answer: Car, expected: Car) -> bool:
    return answer.occupant == expected.occupant


@promise("the tokens given are those who rode")
def _tokens_are_riders(given: Given, answer: Car, expected: Car) -> bool:
    return answer.rest == expected.rest


STEP = Task(
    id="ex02.2",
    title="one decoding step",
    function="step",
    cases=_steps,
    smaller=fewer_slots,
    expected=_expected_step,
    read=_read_step,
    properties=(
        _one_token_each,
        _empty_stays_empty,
        _last_token_leaves,
        _others_stay,
        _tokens_are_riders,
    ),
    rides=car_rides,
    hints=(
        "Who is on board before the step decides who gets a token. Who has none left after it leaves.",
        "on_board = occupant != NOBODY is an array of 0 and 1 that can be taken from remaining.",
        "remaining = remaining - on_board; whoever was on board and has 0 now leaves: np.where(leaving, NOBODY, "
        "occupant). The tokens are on_board.sum(), as an int.",
    ),
)
