"""The rides that exercise 07 shows: plain records that know, on this side alone, what was planted."""

from __future__ import annotations

from random import Random
from typing import Any

from lessonlib.checks.spec import WrongForm, kind
from lessonlib.errors import CourseError
from lessonlib.incidents.fault import Fault
from lessonlib.incidents.load import Load
from lessonlib.incidents.pool import Incident, incident
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
        desk: where the ticket belongs, for the first two.
    """

    def __init__(
        self, record: dict[str, Any], trace: Trace, role: str, found: Incident | None = None, desk: str = ""
    ) -> None:
        super().__init__(record)
        self.trace, self.role, self.found, self.desk = trace, role, found, desk


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
    return Shown(found.record, found.trace, role, found, desk)


def sound_ride(load: Load) -> Shown:
    """A ride of the course's own scheduler."""
    trace = run(load)
    return Shown(plain_record(trace, load), trace, SOUND)
