"""Faults of the queue: who boards first, which slots stay empty, who is preempted."""

from __future__ import annotations

from collections.abc import Sequence

from lessonlib.incidents.fault import Fault, Knobs, Plant
from lessonlib.incidents.load import Load, crowded, tiered, tight
from lessonlib.scheduling.plan import StepPlan
from lessonlib.scheduling.policies import SLATiers
from lessonlib.scheduling.policy import Policy, SchedulerView
from lessonlib.scheduling.request import RequestState
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.trace import NO_SLOT


class Planted(Scheduler):
    """A scheduler with knobs."""

    knobs: Knobs


def scheduler_of(cls: type[Scheduler]) -> Plant:
    """Plants a scheduler of this class, with its knobs."""
    return lambda load, knobs: load.scheduler(type(cls.__name__, (cls,), {"knobs": knobs}))


class _Rank(Policy):
    """Ranks requests by something else than their arrival, from some request on."""

    def __init__(self, load: Load, knobs: Knobs) -> None:
        self.load, self.knobs = load, knobs

    def rank(self, request: RequestState) -> float:
        return self.other_rank(request) if self.knobs.strikes() else 0.0

    def other_rank(self, request: RequestState) -> float:
        """The rank of a request that is ranked wrongly."""
        raise NotImplementedError


class _NewestFirst(_Rank):
    def other_rank(self, request: RequestState) -> float:
        return -1.0 - request.arrival_step


class _ByName(_Rank):
    """By its id as text, where "10" comes before "2"."""

    def rank(self, request: RequestState) -> float:
        return float(f"0.{request.id}")


class _ShortestPrompt(_Rank):
    def rank(self, request: RequestState) -> float:
        return float(request.prompt_tokens)


class _BestTierAlways(SLATiers):
    """The worse tiers wait as long as anyone of a better one comes."""

    def __init__(self, load: Load, knobs: Knobs) -> None:
        super().__init__(patience=1e6)


class _ToTheBack(Planted):
    """A request that is preempted loses its claim."""

    def _preempt(self, plan: StepPlan, request: RequestState, candidates: Sequence[RequestState]) -> None:
        super()._preempt(plan, request, candidates)
        if self.knobs.strikes():
            request.rank = 1.0 + self.next_step


def _with_policy(policy: type[_Rank] | type[_BestTierAlways]) -> Plant:
    return lambda load, knobs: load.scheduler(policy=policy(load, knobs))


# ----- slots that stay empty -----


class _LosesASlot(Planted):
    def _release(self, request: RequestState) -> None:
        slot, lost = request.slot, request.slot != NO_SLOT and len(self.lost) < 1 and self.knobs.strikes()
        super()._release(request)
        if lost:
            self._free_slots.remove(slot)
            self._free_slots.sort()  # still a heap
            self.lost = (slot,)

    lost: tuple[int, ...] = ()


class _RefillsLate(Planted):
    """A slot is free for others one step after it was left."""

    def schedule(self) -> StepPlan:
        left = [slot for slot in self._free_slots if slot in self._in_use]
        late = left if left and self.knobs.strikes() else []
        self._free_slots = [slot for slot in self._free_slots if slot not in late]
        plan = super().schedule()
        self._free_slots = sorted([*self._free_slots, *late])
        self._in_use = {request.slot for request in self.running}
        return plan

    _in_use: set[int] = set()  # noqa: RUF012 - replaced, never changed


class _OneAStep(Planted):
    def _admit_waiting(self, plan: StepPlan) -> None:
        free = sorted(self._free_slots)
        kept = free[1:] if len(free) > 1 and self.waiting and self.knobs.strikes() else []
        self._free_slots = [slot for slot in free if slot not in kept]
        super()._admit_waiting(plan)
        self._free_slots = sorted([*self._free_slots, *kept])


class _WaitsForTwo(Policy):
    """Nobody boards until two slots are free."""

    def __init__(self, load: Load, knobs: Knobs) -> None:
        self.knobs = knobs

    def may_admit(self, scheduler: SchedulerView) -> bool:
        empty = scheduler.slots - len(scheduler.running)
        return empty > 1 or not self.knobs.strikes()


# ----- who is preempted -----


class _Victim(Policy):
    """Chooses another one to preempt, from some occasion on."""

    def __init__(self, load: Load, knobs: Knobs) -> None:
        self.knobs = knobs

    def victim(
        self, scheduler: SchedulerView, candidates: Sequence[RequestState], request: RequestState
    ) -> RequestState | None:
        if request.is_running and self.knobs.strikes():
            return self.chosen(candidates)
        return super().victim(scheduler, candidates, request)

    def chosen(self, candidates: Sequence[RequestState]) -> RequestState:
        """Who goes instead of the last one."""
        return candidates[0]


class _Largest(_Victim):
    def chosen(self, candidates: Sequence[RequestState]) -> RequestState:
        return max(candidates, key=lambda request: len(request.block_table))


class _BoardsAllTheSame(Planted):
    """Admits requests in a step that preempts."""

    def _serve(self, plan: StepPlan, order: list[RequestState]) -> None:
        super()._serve(plan, order)
        if plan.preempted and self.knobs.strikes():
            self._admit_waiting(plan)


def _with_choice(policy: type[_Victim] | type[_WaitsForTwo]) -> Plant:
    return lambda load, knobs: load.scheduler(policy=policy(load, knobs))


UNFAIR = "Riders complain that others, who came after them, were let in first."
LONG_WAIT = "The line at the door is as long as ever, and the car looks emptier than it did."
PING_PONG = "The same riders are thrown out again and again, and it is not their turn."

FAULTS = (
    Fault(
        "a preempted request goes to the back of the queue", "order", UNFAIR, tight, scheduler_of(_ToTheBack)
    ),
    Fault("the newest request boards first", "order", UNFAIR, crowded, _with_policy(_NewestFirst)),
    Fault("the queue is in the order of names, 10 before 2", "order", UNFAIR, crowded, _with_policy(_ByName)),
    Fault("the shortest prompt boards first", "order", UNFAIR, crowded, _with_policy(_ShortestPrompt)),
    Fault("a better tier always goes first", "order", UNFAIR, tiered, _with_policy(_BestTierAlways)),
    Fault("a slot is never filled again", "seats", LONG_WAIT, crowded, scheduler_of(_LosesASlot)),
    Fault("a slot is filled one step late", "seats", LONG_WAIT, crowded, scheduler_of(_RefillsLate)),
    Fault(
        "one request boards in a step, however many slots are free",
        "seats",
        LONG_WAIT,
        crowded,
        scheduler_of(_OneAStep),
    ),
    Fault("nobody boards until two slots are free", "seats", LONG_WAIT, crowded, _with_choice(_WaitsForTwo)),
    Fault("the one who needs a block is preempted", "preemption", PING_PONG, tight, _with_choice(_Victim)),
    Fault(
        "the one with the most blocks is preempted", "preemption", PING_PONG, tight, _with_choice(_Largest)
    ),
    Fault(
        "requests board in a step that preempts",
        "preemption",
        PING_PONG,
        tight,
        scheduler_of(_BoardsAllTheSame),
    ),
)
