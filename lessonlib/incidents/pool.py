"""All planted faults, and incidents: a load run by a scheduler with one of them, and what proves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from lessonlib.incidents import memory, queue, work
from lessonlib.incidents.fault import LARGEST, LATEST, Fault, Knobs
from lessonlib.incidents.laws import LAWS, ROUNDING
from lessonlib.incidents.load import LOADS, Load
from lessonlib.incidents.record import Record, plain_record
from lessonlib.incidents.run import Unfinished, run
from lessonlib.trace import Trace

FAULTS = {fault.cause: fault for module in (memory, queue, work) for fault in module.FAULTS}
"""Every fault by its cause."""

DESKS = {
    "memory": ("blocks", "tables", "prefixes", "watermark"),
    "queue": ("order", "seats", "preemption"),
    "work": ("decodes", "budget", "reading", "limits", "clock"),
}
"""The families of faults, in three groups: whoever is on call gets one of each."""

MOST_DRAWS = 300


@dataclass(frozen=True)
class Incident:
    """One recorded run with a planted fault.

    Attributes:
        fault, load: what was planted, and what was to be done.
        sound, trace: the load by the course's scheduler, and with the fault.
        record: `trace` as a plain record.
        step, number: the first step in which the two differ, and the number that proves it.
    """

    fault: Fault
    load: Load
    sound: Trace
    trace: Trace
    record: Record
    step: int
    number: float


def siblings(family: str) -> list[Fault]:
    """All faults that break one law."""
    return [fault for fault in FAULTS.values() if fault.family == family]


def incident(fault: Fault, rng: Random) -> Incident:
    """A load on which the fault shows, at once in the record alone: where it first differs from a sound run."""
    for _ in range(MOST_DRAWS):
        if (found := attempt(fault, rng)) is not None:
            return found
    raise AssertionError(f"the fault {fault.cause!r} showed on none of {MOST_DRAWS} loads")


def sound_rides(number: int = 0) -> list[Record]:
    """Plain records of the course's own scheduler, one of each kind of load; others for each number."""
    rng = Random(f"sound {number}")
    loads = [draw(rng) for draw in LOADS]
    return [plain_record(run(load), load) for load in loads]


def attempt(fault: Fault, rng: Random) -> Incident | None:
    """An incident; None where the fault does not come up, or comes up where the law cannot tell yet."""
    load, knobs = fault.load(rng), Knobs.drawn(rng)
    sound = run(load)
    try:
        trace = run(load, fault.plant(load, knobs))
    except Unfinished:
        return None
    record = plain_record(trace, load)
    step = first_difference(plain_record(sound, load), record)
    shown = fault.law.broken_in(record)
    if step is None or shown is None or shown[0] != step or _breaks_another(record, step, fault.family):
        return None
    return Incident(fault, load, sound, trace, record, step, shown[1])


def _breaks_another(record: Record, last: int, family: str) -> bool:
    """Whether a law of another group is broken by then, so that the record points at two causes."""
    (group,) = (families for families in DESKS.values() if family in families)
    others = [law for name, law in LAWS.items() if name not in group]
    return any(law.measure(record, at) > ROUNDING for law in others for at in range(last + 1))


def looks_like(found: Incident, other: Fault) -> bool:
    """Whether another fault, with any knobs, gives just this record, so that nothing tells the two apart."""
    for after in range(LATEST + 1):
        for size in range(1, LARGEST + 1):
            try:
                trace = run(found.load, other.plant(found.load, Knobs(after, size)))
            except Unfinished:
                continue
            if plain_record(trace, found.load) == found.record:
                return True
    return False


def first_difference(sound: Record, other: Record) -> int | None:
    """The first step in which two records of one load differ; None where they do not."""
    pairs: Sequence[tuple[Record, Record]] = list(zip(sound["steps"], other["steps"], strict=False))
    differ = (at for at, (one, two) in enumerate(pairs) if one != two)
    longer = None if len(sound["steps"]) == len(other["steps"]) else len(pairs)
    return next(differ, longer)
