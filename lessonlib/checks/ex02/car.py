"""The state that `refill` and `step` change, how it becomes smaller, and how it is shown in the elevator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from lessonlib.checks.replay import Moment, before_and_after, both
from lessonlib.checks.spec import Given, parts, whole_list
from lessonlib.simulation.slots import NOBODY
from lessonlib.trace import Trace


class Car(NamedTuple):
    """The state after a part has run; `rest` is the waitlist of ex02.1 and the tokens of ex02.2."""

    occupant: list[int]
    remaining: list[int]
    rest: Any


def read_car(answer: Any, given: Given, rest: str, read: Callable[[Any, str], Any]) -> Car:
    """What came back as a Car; `read` reads its last part, which is called `rest`."""
    occupant, remaining, last = parts(answer, ("occupant", "remaining", rest))
    slots = len(given["occupant"])
    return Car(
        whole_list(occupant, "occupant", slots),
        whole_list(remaining, "remaining", slots),
        read(last, rest),
    )


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

    def traced(car: Car) -> Trace:
        waiting = car.rest if "waitlist" in given else []
        return before_and_after(slots, before, Moment(_seats(car.occupant), waiting))

    return both(answer, expected, traced)


def _seats(occupant: list[int]) -> dict[int, int]:
    return {slot: request for slot, request in enumerate(occupant) if request != NOBODY}


LOOP_PARTS = ("refill", "step")
