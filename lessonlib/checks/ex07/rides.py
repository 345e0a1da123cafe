"""The rides that exercise 07 shows: plain records that know, on this side alone, what was planted."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from lessonlib.checks.spec import WrongForm, kind
from lessonlib.errors import CourseError
from lessonlib.incidents.fault import Fault
from lessonlib.incidents.load import Load
from lessonlib.incidents.pool import Incident, incident, siblings
from lessonlib.incidents.record import plain_record
from lessonlib.incidents.run import run
from lessonlib.incidents.tickets import drawn_for
from lessonlib.trace import Trace

TICKET, SIBLING, SOUND = "ticket", "sibling", "sound"


class Shown(dict[str, Any]):
    """A record as a function gets it.

    Attributes:
        trace: what it was made of.
        role: TICKET for a fault that was drawn for the student, SIBLING for another that breaks the same law, or
            SOUND.
        found: what was planted, and where it shows; None for a sound ride.
        about: the desk where the ticket belongs, for the first two; of a sound ride, what kind of load it is.
    """

    def __init__(
        self, record: dict[str, Any], trace: Trace, role: str, about: str, found: Incident | None = None
    ) -> None:
        super().__init__(record)
        self.trace, self.role, self.about, self.found = trace, role, about, found


def faults_of(who: Any) -> dict[str, Fault]:
    """Desk → fault, for what `on_call` gave. Raises `WrongForm` for anything but a name."""
    if not isinstance(who, str):
        raise WrongForm(f"on_call should give your name, a string; what came back is {kind(who)}.")
    try:
        return drawn_for(who)
    except CourseError as error:
        raise WrongForm(f"on_call should give your name: {error}.") from error


def broken_ride(fault: Fault, rng: Random, role: str, desk: str) -> Shown:
    """A ride with this fault."""
    found = incident(fault, rng)
    return Shown(found.record, found.trace, role, desk, found)


def sound_ride(draw: Callable[[Random], Load], rng: Random) -> Shown:
    """A ride of the course's own scheduler, on a load of this kind."""
    return _sound(draw(rng), draw)


def sound_ride_where_it_matters(law: str, rng: Random) -> Shown:
    """The same on a load on which a scheduler that breaks this law is found out."""
    fault = siblings(law)[0]
    return _sound(incident(fault, rng).load, fault.load)


def _sound(load: Load, draw: Callable[[Random], Load]) -> Shown:
    trace = run(load)
    return Shown(plain_record(trace, load), trace, SOUND, draw.__doc__ or "")
