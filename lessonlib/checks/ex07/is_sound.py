"""ex07.2: a guard that lets sound rides by, and stops those that break a law of the tickets."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from lessonlib.checks.ex07.rides import (
    SIBLING,
    SOUND,
    TICKET,
    Shown,
    broken_ride,
    faults_of,
    sound_ride,
    sound_ride_where_it_matters,
)
from lessonlib.checks.spec import Given, Property, Task, WrongForm, kind, promise, show
from lessonlib.incidents.fault import Fault
from lessonlib.incidents.laws import LAWS
from lessonlib.incidents.load import LOADS, quiet
from lessonlib.incidents.pool import siblings
from lessonlib.trace import Trace

EACH = 2  # rides of each ticket's cause; of a sibling there is one


def _rides(rng: Random, who: str = "ada") -> Iterator[Given]:
    """One of each at once, then sound rides, then broken ones, one by one. Raises `WrongForm` for what is no name."""
    return _drawn(rng, faults_of(who))


def _drawn(rng: Random, faults: dict[str, Fault]) -> Iterator[Given]:
    tickets = [broken_ride(fault, rng, TICKET, desk) for desk, fault in faults.items()]
    yield {"rides": [sound_ride(quiet, rng), *tickets]}
    for load in LOADS:
        yield {"rides": [sound_ride(load, rng)]}
    for law in LAWS:  # loads on which a law matters: to break it would show
        yield {"rides": [sound_ride_where_it_matters(law, rng)]}
    for _ in range(EACH):
        for desk, fault in faults.items():
            yield {"rides": [broken_ride(fault, rng, TICKET, desk)]}
    for desk, fault in faults.items():
        for other in siblings(fault.family):
            if other is not fault:
                yield {"rides": [broken_ride(other, rng, SIBLING, desk)]}


def _no_smaller(given: Given) -> Iterator[Given]:
    """A ride without one of its steps is none."""
    return iter(())


def _verdicts(rides: list[Shown]) -> list[bool]:
    return [ride.role == SOUND for ride in rides]


def _read_verdicts(answer: Any, given: Given) -> list[bool]:
    if not isinstance(answer, list) or len(answer) != len(given["rides"]):
        raise WrongForm(f"The guard should say one thing of each ride; what came back is {kind(answer)}.")
    for each in answer:
        if not isinstance(each, bool):
            raise WrongForm(f"The guard should say True or False; {show(each)} is {kind(each)}.")
    return answer


@promise("a guard that lets every ride by guards nothing")
def _stops_some(given: Given, answer: list[bool], expected: list[bool]) -> bool:
    """Looks at all tickets at once."""
    return len(answer) == 1 or not all(answer)


@promise("a guard that stops every ride is a locked door")
def _lets_some_by(given: Given, answer: list[bool], expected: list[bool]) -> bool:
    """Looks at all tickets at once."""
    return len(answer) == 1 or any(answer)


def _judged(name: str, role: str) -> Property:
    """Looks at rides of one role."""

    def holds(given: Given, answer: list[bool], expected: list[bool]) -> bool:
        verdicts = zip(given["rides"], answer, expected, strict=True)
        return all(said == right for ride, said, right in verdicts if ride.role == role)

    return Property(name, holds)


def _explain(given: Given, expected: list[bool]) -> str:
    rides: list[Shown] = given["rides"]
    if len(rides) > 1:
        return "the first ride is sound, the others are those of your tickets"
    return _about(rides[0])


def _about(ride: Shown) -> str:
    """What was planted; of a ticket only the desk, since its cause is for the student to find."""
    if ride.found is None:
        return f"a false alarm, the ride is sound. {ride.about}"
    found = ride.found
    cause = f"the cause of your {ride.about} ticket" if ride.role == TICKET else f"“{found.fault.cause}”"
    shows = f"which shows in step {found.step}: {found.number:.4g} there"
    return f"it lets by {cause}, {shows}, where the number counts {found.fault.law.number}"


def _misjudged(given: Given, answer: list[bool] | None, expected: list[bool]) -> dict[str, Trace]:
    """The first ride of which the guard says the wrong thing."""
    said = answer or [not right for right in expected]
    wrong = [ride for ride, one, right in zip(given["rides"], said, expected, strict=True) if one != right]
    return {"ride": wrong[0].trace}


GUARD = Task(
    id="ex07.2",
    title="the guard",
    function="is_sound",
    cases=_rides,
    smaller=_no_smaller,
    expected=_verdicts,
    read=_read_verdicts,
    properties=(
        _stops_some,
        _lets_some_by,
        _judged("a sound ride goes by, whatever the load", SOUND),
        _judged("a ride with the cause of a ticket is stopped", TICKET),
        _judged("what breaks the same law in another way is stopped too", SIBLING),
    ),
    explain=_explain,
    rides=_misjudged,
    through="judge",
    drawn_for="on_call",
    hints=(
        "The causes on a ticket that share their number share a law. A guard looks at the law: how it was broken is "
        "nothing to it.",
        "What you counted in ex07.1 for each step is nearly it. Ask what else brings the number about: memory that is "
        "short, a budget that is spent, a request that has just boarded. A sound ride must not be stopped for these.",
        "`return all(count(ride, at) == 0 for at in range(len(ride['steps'])) for count in (...))`, with one `count` "
        "a law. Too few is as wrong as too many: take `abs`. Look at every step, not at those alone in which something "
        "is preempted or leaves.",
    ),
)
