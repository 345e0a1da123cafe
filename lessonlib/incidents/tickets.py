"""What is on the desk of whoever is on call: three tickets, drawn for their name, and the causes to choose from."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from random import Random

from lessonlib.counting import count
from lessonlib.errors import CourseError
from lessonlib.incidents.fault import Fault
from lessonlib.incidents.pool import DESKS, FAULTS, MOST_DRAWS, Incident, incident, looks_like, siblings
from lessonlib.incidents.record import Record
from lessonlib.tables import Table
from lessonlib.trace import Trace

CHOICES = 6
LONGEST_NAME = 100


@dataclass(frozen=True)
class Ticket:
    """One incident, as it reaches whoever is on call.

    Attributes:
        desk: where it belongs: "memory", "queue" or "work".
        complaint: what people say.
        choices: causes, one of them the right one, in an order that says nothing.
        trace: the recorded run, for the elevator.
        ride: the same as a plain record, as the functions of exercise 07 get it.
    """

    desk: str
    complaint: str
    choices: tuple[str, ...]
    trace: Trace
    ride: Record

    @property
    def table(self) -> Table:
        """The choices, and beside each what its number counts."""
        return Table(
            [["what broke?", "the number"], *([each, FAULTS[each].law.number] for each in self.choices)]
        )

    @property
    def server(self) -> str:
        """How the server was set up, as a sentence."""
        ride = self.ride
        extra = f", a watermark of {count(ride['watermark'], 'block')}" if ride["watermark"] else ""
        extra += f", a patience of {count(ride['patience'], 'step')} a tier" if ride["patience"] else ""
        memory = f"{count(ride['blocks'], 'block')} of {count(ride['block_size'], 'token')}"
        return f"{count(ride['slots'], 'slot')}, {memory}, {count(ride['budget'], 'token')} a step{extra}."

    def __str__(self) -> str:
        return f"{self.desk} desk: “{self.complaint}”\n{self.server}\n{self.table!r}"

    def _repr_html_(self) -> str:
        told = f"<p><b>{self.desk} desk:</b> “{self.complaint}”<br>{self.server}</p>"
        return f"{told}{self.table._repr_html_()}"


def drawn_for(who: str) -> dict[str, Fault]:
    """Desk → the fault that is drawn for this name: the same each time, and another for most other names.

    Each fault has a number that only the name and its cause go into, and the largest wins: a fault that is new in
    the pool changes the draw of few names. Raises `CourseError` for a name that is none.
    """
    name = _plain(who)
    if not name or len(name) > LONGEST_NAME:
        raise CourseError(
            f"{who[:LONGEST_NAME]!r} is no name to draw for: give your own, up to {LONGEST_NAME} characters"
        )

    def lot(text: str) -> bytes:
        return sha256(f"{name}: {text}".encode()).digest()

    families = {desk: max(names, key=lot) for desk, names in DESKS.items()}
    return {
        desk: max(siblings(family), key=lambda fault: lot(fault.cause)) for desk, family in families.items()
    }


def _plain(who: str) -> str:
    return " ".join(who.split()).casefold()


def tickets(who: str, again: int = 0) -> list[Ticket]:
    """The three tickets of this name. Raises `CourseError` for a name that is none.

    Args:
        again: 1, 2, … for other rides with the same causes.
    """
    faults, made = drawn_for(who), []
    for desk, fault in faults.items():
        rng = Random(f"{desk} of {_plain(who)}, {again}")
        made.append(ticket(desk, _told_apart(fault, rng), rng))
    return made


def _told_apart(fault: Fault, rng: Random) -> Incident:
    """An incident that no other fault of the same law can have brought about."""
    others = [other for other in siblings(fault.family) if other is not fault]
    for _ in range(MOST_DRAWS):
        found = incident(fault, rng)
        if not any(looks_like(found, other) for other in others):
            return found
    raise AssertionError(f"the fault {fault.cause!r} always looks like another one")


def ticket(desk: str, found: Incident, rng: Random) -> Ticket:
    """A ticket of this incident: beside its cause stand others of the same law, then others of the same desk."""
    fault = found.fault
    near = [other.cause for other in siblings(fault.family) if other is not fault]
    far = [other for name in DESKS[desk] if name != fault.family for other in siblings(name)]
    rng.shuffle(near)
    others = near[: CHOICES // 2]
    others += rng.sample([other.cause for other in far], CHOICES - 1 - len(others))
    choices = [fault.cause, *others]
    rng.shuffle(choices)
    return Ticket(desk, fault.complaint, tuple(choices), found.trace, found.record)


def causes() -> Table:
    """Every cause that may be drawn, with what its number counts."""
    rows = [
        [fault.cause, fault.law.number] for fault in sorted(FAULTS.values(), key=lambda fault: fault.cause)
    ]
    return Table([["cause", "the number"], *rows])
