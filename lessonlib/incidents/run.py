"""A load run by a scheduler, sound or broken, to its end."""

from __future__ import annotations

from lessonlib.errors import CourseError
from lessonlib.incidents.load import Load
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.simulation.simulator import Simulator
from lessonlib.trace import NO_SLOT, Kind, Trace, TraceBuilder

MOST_STEPS = 160


class Unfinished(Exception):  # noqa: N818 - of a broken scheduler, which may well not come to an end
    """The scheduler did not bring its requests to an end."""


class StepByStep(TraceBuilder):
    """Records decodes one row a step, so that the blocks of each step are kept."""

    def add(
        self,
        kind: Kind,
        request: int,
        slot: int = NO_SLOT,
        tokens: int = 0,
        blocks: int = 0,
        step: int | None = None,
    ) -> None:
        self._open_run.pop(request, None)
        super().add(kind, request, slot, tokens, blocks, step)

    def restamp(self, request: int, arrival_time: float) -> None:
        """Give a request another time of arrival, which no sound recorder does."""
        self._arrival_time[request] = arrival_time


class Run(Simulator):
    """A simulator in which requests give up, and that ends after `MOST_STEPS`."""

    def __init__(self, load: Load, scheduler: Scheduler) -> None:
        super().__init__(load.workload, scheduler, load.cost_model, load.prompts, salts=load.tenants)
        self._gives_up = dict(load.gives_up)
        scheduler.trace_builder = StepByStep(scheduler.trace_builder.header, (), ())

    def receive(self) -> None:
        super().receive()
        for row, step in list(self._gives_up.items()):
            request = self.scheduler.requests.get(str(row))
            # Whoever gave up before the first step would stand in that step's queue all the same.
            if request and self.scheduler.next_step >= max(step, request.arrival_step + 1):
                self.scheduler.abort(request.id)
                del self._gives_up[row]

    def step(self) -> None:
        if self.scheduler.next_step >= MOST_STEPS:
            raise Unfinished
        super().step()


def run(load: Load, scheduler: Scheduler | None = None) -> Trace:
    """The Trace of the load, by the course's own scheduler unless one is given.

    Raises `Unfinished` where the scheduler comes to no end.
    """
    try:
        return Run(load, scheduler or load.scheduler()).run()
    except (CourseError, ValueError) as stuck:
        raise Unfinished from stuck
