"""ex07.1: what broke, which number proves it, and the first step in which it shows."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from lessonlib.checks.ex07.rides import TICKET, Shown, broken_ride, faults_of
from lessonlib.checks.spec import Given, Task, WrongForm, kind, number, parts, promise, show, whole
from lessonlib.incidents.laws import ROUNDING
from lessonlib.incidents.pool import FAULTS
from lessonlib.trace import Trace

RIDES = 5  # of each ticket


class Diagnosis(NamedTuple):
    """What the student says of a ride."""

    cause: str
    number: float
    step: int


def _incidents(rng: Random, who: str = "ada") -> Iterator[Given]:
    """Fresh rides of the three faults drawn for a name, in turn. Raises `WrongForm` for what is no name."""
    faults = faults_of(who)
    return (
        {"ride": broken_ride(fault, rng, TICKET, desk)}
        for _ in range(RIDES)
        for desk, fault in faults.items()
    )


def _no_smaller(given: Given) -> Iterator[Given]:
    """A ride without one of its steps is none."""
    return iter(())


def _planted(ride: Shown) -> Diagnosis:
    assert ride.found is not None
    return Diagnosis(ride.found.fault.cause, ride.found.number, ride.found.step)


def _read_diagnosis(answer: Any, given: Given) -> Diagnosis:
    cause, proof, step = parts(answer, ("cause", "number", "step"))
    if not isinstance(cause, str):
        raise WrongForm(f"The cause should be one of the causes, a string; what came back is {kind(cause)}.")
    return Diagnosis(cause, number(proof, "The number"), whole(step, "The step"))


@promise("the cause is one of those on the tickets, word for word")
def _is_known(given: Given, answer: Diagnosis, expected: Diagnosis) -> bool:
    return answer.cause in FAULTS


@promise("the cause is the one that was planted")
def _is_planted(given: Given, answer: Diagnosis, expected: Diagnosis) -> bool:
    return answer.cause == expected.cause


@promise("the step is the first in which it shows")
def _is_first(given: Given, answer: Diagnosis, expected: Diagnosis) -> bool:
    return answer.step == expected.step


@promise("the number is that of this step")
def _is_proof(given: Given, answer: Diagnosis, expected: Diagnosis) -> bool:
    return abs(answer.number - expected.number) <= ROUNDING


def _shown(answer: Diagnosis, expected: Diagnosis) -> tuple[str, str]:
    """The cause is kept back: only who has found it is told the rest."""
    came_back = show(tuple(answer))
    if answer.cause != expected.cause:
        return came_back, f"another cause: look at step {expected.step} of this ride"
    return came_back, f"{show(tuple(expected))}: the number counts {FAULTS[expected.cause].law.number}"


def _ride(given: Given, answer: object, expected: Diagnosis) -> dict[str, Trace]:
    return {"incident": given["ride"].trace}


DIAGNOSIS = Task(
    id="ex07.1",
    title="three tickets",
    function="diagnose",
    others={"on_call": ()},
    cases=_incidents,
    smaller=_no_smaller,
    expected=_planted,
    read=_read_diagnosis,
    properties=(_is_known, _is_planted, _is_first, _is_proof),
    shown=_shown,
    rides=_ride,
    drawn_for="on_call",
    kept_back="a cause, a number and a step",
    hints=(
        "Print each of your tickets, and play its ride. What should hold in every step, and does not? The column of "
        "numbers beside the causes says what is worth counting.",
        "Write one function a ticket that gives its number for one step, and 0 where nothing is wrong. `diagnose` goes "
        "through the steps in order and asks all three: the first number above 0 is the answer.",
        "For each `at, step` of `enumerate(ride['steps'])` make a dict, cause → number, and return the first that is "
        "above 0 as `(cause, number, at)`. Blocks lost: `ride['blocks'] - step['free_blocks'] - "
        "sum(step['held'].values())`. Blocks that a request takes: `-(-step['known'][r] // ride['block_size'])`. "
        "Tokens computed: those in `prefill`, and one for each in `decode` that is not in `prefill`.",
    ),
)
