"""A check's report in a notebook, and below it the elevator with the rides that failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from IPython.display import display

from lessonlib.trace import Trace
from lessonlib.viz.elevator import Elevator


class HasRides(Protocol):
    """A report: it shows itself, and has rides by name."""

    @property
    def rides(self) -> Mapping[str, Trace]: ...


def play(report: HasRides) -> Elevator | None:
    """Show the report; the first exercise with a failing ride comes back as an Elevator, what came and what was due."""
    display(report)
    task = next(iter(report.rides), "").partition(" ")[0]
    rides = {name: trace for name, trace in report.rides.items() if name.startswith(f"{task} ")}
    return Elevator(rides, title=f"{task}, on the smallest case that failed") if rides else None
