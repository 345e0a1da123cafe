"""What a planted fault is: a scheduler that goes wrong in one way, and from some occasion on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from lessonlib.incidents.laws import LAWS, Law
from lessonlib.incidents.load import Load
from lessonlib.scheduling.scheduler import Scheduler

LATEST, LARGEST = 3, 3


@dataclass
class Knobs:
    """What makes siblings of one fault.

    Attributes:
        after: occasions that go well before the first that does not, up to `LATEST`.
        size: how far it goes wrong, from 1 to `LARGEST`.
    """

    after: int = 0
    size: int = 1
    _seen: int = 0

    @classmethod
    def drawn(cls, rng: Random) -> Knobs:
        return cls(max(0, rng.randint(-1, LATEST)), rng.randint(1, LARGEST))

    def strikes(self) -> bool:
        """Whether this occasion is one that goes wrong. Ask once an occasion."""
        self._seen += 1
        return self._seen > self.after


Plant = Callable[[Load, Knobs], Scheduler]


@dataclass(frozen=True)
class Fault:
    """One way in which a scheduler, an allocator or a recorder goes wrong.

    Attributes:
        cause: what is wrong, as it is named to a student.
        family: the name of the law that it breaks.
        complaint: how it shows to those who do not look at the record.
        load: draws a load on which it may show.
        plant: makes a scheduler that has it.
    """

    cause: str
    family: str
    complaint: str
    load: Callable[[Random], Load]
    plant: Plant

    @property
    def law(self) -> Law:
        return LAWS[self.family]
