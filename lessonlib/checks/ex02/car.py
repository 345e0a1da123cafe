"""The state that `refill` and `step` change, how it becomes smaller, and how it is shown in the elevator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from lessonlib.checks.replay import CAME_BACK, EXPECTED, Moment, before_and_after
from lessonlib.checks.spec import Given
from lessonlib.simulation.slots import NOBODY
from lessonlib.trace import Trace


class Car(NamedTuple):
    """The state after a part has run; `rest` is the waitlist of ex02.1 and the tokens of ex02.2."""

    occupant: list[int]
    remaining: list[int]
    rest: Any


def free_slots(given: Given) -> list[int]:
    return np.flatnonzero(given["occupant"] == NOBODY).tolist()


def taken_slots(given: Given) -> list[int]:
    return np.flatnonzero(given["occupant"] != NOBODY).tolist()


def fewer_slots(given: Given) -> Iterator[Given]:
    """The same car with one slot less, whoever sat there gone."""
    for slot in range(len(given["occupant"]) if len(given["occupant"]) > 1 else 0):
        arrays = {name: np.delete(given[name], slot) for name in ("occupant", "remaining")}
        yield {**given, **arrays}


def car_rides(given: Given, answer: Car | None, expected: Car) -> dict[str, Trace]:
    """The car before, and after what came back or after what was due."""
    waitlist, slots = given.get("waitlist", []), len(given["occupant"])
    before = Moment(_seats(given["occupant"].tolist()), waitlist)
    cars = {CAME_BACK: answer, EXPECTED: expected}
    return {
        name: before_and_after(
            slots, before, Moment(_seats(car.occupant), car.rest if "waitlist" in given else [])
        )
        for name, car in cars.items()
        if car is not None
    }


def _seats(occupant: list[int]) -> dict[int, int]:
    return {slot: request for slot, request in enumerate(occupant) if request != NOBODY}


LOOP_PARTS = ("refill", "step")
