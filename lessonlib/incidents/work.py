"""Faults of what a step computes and of what is written down: tokens, budgets, limits, the clock."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from lessonlib.incidents.fault import Fault
from lessonlib.incidents.load import (
    crowded,
    crowded_in_seconds,
    long_prompts,
    tight,
    tight_in_seconds,
)
from lessonlib.incidents.queue import Planted, scheduler_of
from lessonlib.incidents.run import StepByStep
from lessonlib.scheduling.plan import ScheduledRequest, StepPlan
from lessonlib.scheduling.request import RequestState
from lessonlib.trace import Kind

TICK = 0.004  # seconds by which a clock is off, times the knob's size


# ----- who gets a token -----


class _PromptsFirst(Planted):
    """Prompts take what they want of the budget, and decodes what is left."""

    def _serve(self, plan: StepPlan, order: list[RequestState]) -> None:
        if not any(request.is_prefilling for request in order) or not self.knobs.strikes():
            super()._serve(plan, order)
            return
        super()._serve(plan, [request for request in order if request.is_prefilling])
        decoding = [request for request in order if request.is_running and not request.is_prefilling]
        served = {row.request.id for row in plan.scheduled}
        super()._serve(plan, [request for request in decoding if request.id not in served][: plan.budget])


class _SkipsTheLast(Planted):
    """The last of those on board gets no token while a prompt is read."""

    def _serve(self, plan: StepPlan, order: list[RequestState]) -> None:
        reads = any(request.is_prefilling for request in order)
        decoding = [request for request in order if not request.is_prefilling]
        skipped = decoding[-1:] if reads and len(decoding) > 1 and self.knobs.strikes() else []
        super()._serve(plan, [request for request in order if request not in skipped])


class _SkipsASlot(Planted):
    """One slot's request is passed over every few steps."""

    def _serve(self, plan: StepPlan, order: list[RequestState]) -> None:
        passed = plan.step % (self.knobs.size + 2) == 0 and len(order) > 1 and self.knobs.strikes()
        super()._serve(plan, [request for request in order if not passed or request.slot])


# ----- the budget -----


class _WithoutDecodes(Planted):
    def _chunk(self, request: RequestState, num_new: int, budget: int) -> int:
        decoding = sum(not other.is_prefilling for other in self.running)
        return super()._chunk(request, num_new, budget + (decoding if self.knobs.strikes() else 0))


class _WholePrompts(Planted):
    def _chunk(self, request: RequestState, num_new: int, budget: int) -> int:
        return num_new if budget > 0 and self.knobs.strikes() else super()._chunk(request, num_new, budget)


class _BudgetEach(Planted):
    def _chunk(self, request: RequestState, num_new: int, budget: int) -> int:
        return super()._chunk(request, num_new, self.token_budget if self.knobs.strikes() else budget)


class _AFewMore(Planted):
    def _chunk(self, request: RequestState, num_new: int, budget: int) -> int:
        return super()._chunk(request, num_new, budget + (self.knobs.size if self.knobs.strikes() else 0))


# ----- what is read before a token comes -----


class _LosesItsAnswer(Planted):
    """A request that is preempted begins its answer again."""

    def _preempt(self, plan: StepPlan, request: RequestState, candidates: Sequence[RequestState]) -> None:
        super()._preempt(plan, request, candidates)
        if self.knobs.strikes():
            request.num_output_tokens = 0


class _SkipsTheRest(Planted):
    """Of a prompt that is cut into chunks only the first is read."""

    def _schedule_tokens(self, plan: StepPlan, request: RequestState, tokens: int) -> None:
        left = request.num_new_tokens - tokens
        if request.is_prefilling and left > 0 and self.knobs.strikes():
            request.num_computed_tokens += left
        super()._schedule_tokens(plan, request, tokens)


class _ReadsNothingAgain(Planted):
    """A request that comes back goes on as though its blocks had been kept."""

    def _computed_at_admission(self, request: RequestState, prefix: Sequence[int]) -> int:
        self.free_prefill = request.num_preemptions > 0
        return super()._computed_at_admission(request, prefix)

    def _start(self, request: RequestState, computed: int) -> None:
        super()._start(request, computed)
        self.free_prefill = False


class _TokenAChunk(Planted):
    """Every chunk of a prompt is written down as though it had given a token."""

    def _record_tokens(self, row: ScheduledRequest) -> None:
        super()._record_tokens(row)
        if row.is_prefill and not row.yields_token and self.knobs.strikes():
            self.trace_builder.add(Kind.DECODE, row.request.order, row.slot, 1, len(row.block_table))


# ----- how many tokens there are -----


class _ATokenMore(Planted):
    more = 1

    def add_request(
        self,
        request_id: str,
        prompt: int | Sequence[int],
        max_tokens: int,
        *,
        priority: int = 0,
        salt: str = "",
        arrival_time: float | None = None,
    ) -> RequestState:
        off = self.more * self.knobs.size if self.knobs.strikes() else 0
        most = max(1, max_tokens + off)
        return super().add_request(
            request_id, prompt, most, priority=priority, salt=salt, arrival_time=arrival_time
        )


class _ATokenLess(_ATokenMore):
    more = -1


class _LimitAnew(Planted):
    def _preempt(self, plan: StepPlan, request: RequestState, candidates: Sequence[RequestState]) -> None:
        super()._preempt(plan, request, candidates)
        if self.knobs.strikes():
            request.max_tokens += request.num_output_tokens


# ----- the clock -----


class _Clock(Planted):
    """Writes down another time than the clock's."""

    behind = 0.0

    def update(
        self,
        plan: StepPlan,
        sampled_tokens: Mapping[str, int],
        stopped: Collection[str] = (),
        *,
        start: float | None = None,
        duration: float = 1.0,
    ) -> list[RequestState]:
        assert start is not None
        self.look(plan, start, duration)
        return super().update(plan, sampled_tokens, stopped, start=start - self.behind, duration=duration)

    def look(self, plan: StepPlan, start: float, duration: float) -> None:
        """Called before a step is written down, with its true start and duration."""

    def restamp(self, request: RequestState, time: float) -> None:
        """Let the request have arrived at another time."""
        assert isinstance(self.trace_builder, StepByStep)
        self.trace_builder.restamp(request.order, time)


class _SetBack(_Clock):
    def look(self, plan: StepPlan, start: float, duration: float) -> None:
        if plan.step and not self.behind and self.knobs.strikes():
            self.behind = TICK * self.knobs.size


class _SlipsAtPreemption(_Clock):
    def look(self, plan: StepPlan, start: float, duration: float) -> None:
        if plan.preempted and self.knobs.strikes():
            self.behind += TICK * self.knobs.size


class _FromBoarding(_Clock):
    def look(self, plan: StepPlan, start: float, duration: float) -> None:
        for request in plan.admitted:
            if request.arrival_step < plan.step and self.knobs.strikes():
                self.restamp(request, start)


class _FromFirstToken(_Clock):
    def look(self, plan: StepPlan, start: float, duration: float) -> None:
        for row in plan.sampled_rows:
            if not row.request.num_output_tokens and self.knobs.strikes():
                self.restamp(row.request, start + duration)


STUTTER = "For some, words stop coming for a while, though they sit in the car."
SLOW_STEPS = "Now and then a step takes far longer than it should, and everyone feels it."
NONSENSE = "Some answers make no sense, as though the question had not been read to its end."
COUNTS = "The bills do not agree with what riders asked for."
CLOCKS = "The dashboard shows times that cannot be."

FAULTS = (
    Fault("prompts are served before decodes", "decodes", STUTTER, long_prompts, scheduler_of(_PromptsFirst)),
    Fault(
        "the last on board gets no token while a prompt is read",
        "decodes",
        STUTTER,
        long_prompts,
        scheduler_of(_SkipsTheLast),
    ),
    Fault(
        "slot 0 is passed over every few steps", "decodes", STUTTER, long_prompts, scheduler_of(_SkipsASlot)
    ),
    Fault(
        "the budget is counted without decodes",
        "budget",
        SLOW_STEPS,
        long_prompts,
        scheduler_of(_WithoutDecodes),
    ),
    Fault(
        "a prompt is read whole, whatever the budget",
        "budget",
        SLOW_STEPS,
        long_prompts,
        scheduler_of(_WholePrompts),
    ),
    Fault(
        "each prompt has the budget for itself", "budget", SLOW_STEPS, long_prompts, scheduler_of(_BudgetEach)
    ),
    Fault(
        "a prompt may go a few tokens over the budget",
        "budget",
        SLOW_STEPS,
        long_prompts,
        scheduler_of(_AFewMore),
    ),
    Fault("a preempted request loses its answer", "reading", NONSENSE, tight, scheduler_of(_LosesItsAnswer)),
    Fault(
        "of a prompt in chunks only the first is read",
        "reading",
        NONSENSE,
        long_prompts,
        scheduler_of(_SkipsTheRest),
    ),
    Fault(
        "a request that comes back reads nothing again",
        "reading",
        NONSENSE,
        tight,
        scheduler_of(_ReadsNothingAgain),
    ),
    Fault(
        "each chunk of a prompt counts as a token",
        "reading",
        NONSENSE,
        long_prompts,
        scheduler_of(_TokenAChunk),
    ),
    Fault("an answer goes on past its limit", "limits", COUNTS, crowded, scheduler_of(_ATokenMore)),
    Fault("an answer ends before its limit", "limits", COUNTS, crowded, scheduler_of(_ATokenLess)),
    Fault("a preempted request has its whole limit again", "limits", COUNTS, tight, scheduler_of(_LimitAnew)),
    Fault("the clock is set back once", "clock", CLOCKS, crowded_in_seconds, scheduler_of(_SetBack)),
    Fault(
        "the clock slips back at a preemption",
        "clock",
        CLOCKS,
        tight_in_seconds,
        scheduler_of(_SlipsAtPreemption),
    ),
    Fault(
        "a wait is counted from the boarding",
        "clock",
        CLOCKS,
        crowded_in_seconds,
        scheduler_of(_FromBoarding),
    ),
    Fault(
        "a wait is counted from the first token",
        "clock",
        CLOCKS,
        crowded_in_seconds,
        scheduler_of(_FromFirstToken),
    ),
)
