"""The scheduler: which requests compute how many tokens in each step, and in which blocks.

    plan = scheduler.schedule()                 # requests, and tokens for each
    tokens = run(plan)                          # a step-cost model, or a real model
    scheduler.update(plan, tokens)              # the tokens sampled; finished requests leave

A step has one budget of tokens and no phases. A request has `num_tokens` tokens, of which `num_computed_tokens` are
computed, and all that the scheduler does is to let the second number catch up with the first: by many tokens a step
during prefill, by one during decode. (The idea is vLLM V1's.)

The scheduler sees token counts and block ids. It never sees a tensor.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import deque
from collections.abc import Collection, Mapping, Sequence

from lessonlib.errors import CourseError
from lessonlib.scheduling.block_pool import BlockPool
from lessonlib.scheduling.kv_cache import Copy, KVCache, UnlimitedKVCache
from lessonlib.scheduling.plan import ScheduledRequest, StepPlan
from lessonlib.scheduling.policies import Continuous
from lessonlib.scheduling.policy import Policy
from lessonlib.scheduling.request import RequestQueue, RequestRejectedError, RequestState, RequestStatus
from lessonlib.scheduling.watch import TableWatch, is_foreign
from lessonlib.trace import NO_SLOT, Header, HeldBy, Kind, Trace, TraceBuilder
from lessonlib.utilization import check_slots

NO_LIMIT = 1 << 62


class Scheduler:
    """Admission, chunked prefill, preemption and release, over paged memory, under one `Policy`.

    Args:
        slots: how many requests may run at once.
        num_blocks: K/V blocks in memory, the null block included; 0: memory without limit.
        block_size: tokens a block.
        token_budget: tokens a step may compute, at least one a slot; None: no limit.
        policy: what decides; `Continuous` by default.
        max_model_len: longest prompt and output together, in tokens; None: as memory allows.
        prefix_caching: share blocks between requests that begin alike (where token ids are given).
        hash_seed: makes prefix hashes repeatable; random unless given.
        free_prefill: prompts cost nothing, as in the slot scheduler.
        max_in_flight: steps that may be planned before the first of them is reported; 2 lets the host prepare
            a step while the device computes the one before.
        kv_cache: an allocator in place of the paged one. One that is not the course's is watched, and the Trace
            records every request that reads another's blocks.
        clock, maker: for the Trace's header.

    Attributes:
        requests: requests that are not done, by id.
        running: the running ones, in the order they are served.
        waiting: the others.
        still_to_come: requests that have not arrived yet, as far as the caller knows; for policies that wait for
            them.
        steps_since_prefill: steps planned since the last one that computed a prompt.
        trace_builder: records every step; `build_trace` makes a `Trace` of it.

    Raises:
        CourseError: for sizes with which no request could run.
    """

    def __init__(
        self,
        slots: int,
        num_blocks: int = 0,
        block_size: int = 16,
        token_budget: int | None = None,
        policy: Policy | None = None,
        *,
        max_model_len: int | None = None,
        prefix_caching: bool = False,
        hash_seed: bytes | int | None = None,
        free_prefill: bool = False,
        max_in_flight: int = 1,
        kv_cache: KVCache | UnlimitedKVCache | None = None,
        clock: str = "steps",
        maker: str = "scheduler",
    ) -> None:
        self.slots = check_slots(slots)
        self.token_budget = check_budget(token_budget, slots)
        self.max_model_len = check_model_len(max_model_len)
        self.max_in_flight = check_in_flight(max_in_flight)
        self.policy = policy or Continuous()
        self.free_prefill = free_prefill
        if kv_cache is None and num_blocks:
            kv_cache = KVCache(BlockPool(num_blocks, block_size, hash_seed), prefix_caching)
        self.kv_cache: KVCache | UnlimitedKVCache = kv_cache or UnlimitedKVCache()

        self._watch = TableWatch(self.kv_cache.block_size) if is_foreign(self.kv_cache) else None

        self.requests: dict[str, RequestState] = {}
        self.running: list[RequestState] = []
        self.waiting = RequestQueue()
        self.still_to_come = 0
        self.steps_since_prefill = 0
        self.next_step = 0
        self._free_slots = list(range(slots))
        self._in_flight: deque[StepPlan] = deque()
        self._copies: list[Copy] = []  # of forks since the last plan
        self.trace_builder = TraceBuilder(
            Header(
                slots=slots,
                clock=clock,
                maker=maker,
                policy=self.policy.name,
                block_size=self.kv_cache.block_size,
                num_blocks=self.kv_cache.num_blocks,
            ),
            prompt_tokens=(),
            arrival_time=(),
        )

    @property
    def has_unfinished(self) -> bool:
        """Whether a request is running or waiting."""
        return bool(self.requests)

    @property
    def num_free_slots(self) -> int:
        """Request slots that no request holds."""
        return len(self._free_slots)

    # ----- requests -----

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
        """Put a request in the queue.

        Args:
            request_id: unique among requests that are not done.
            prompt: its length in tokens, or its token ids.
            max_tokens: output tokens it will get at most.
            priority: smaller is more urgent, for policies that use it.
            salt: a tenant's name; prefixes are shared only within it.
            arrival_time: in the Trace's clock; by default the next step.

        Raises:
            CourseError: for an id in use, an empty prompt or a `max_tokens` below 1; nothing is recorded.
            RequestRejectedError: for a request that could never run; the Trace records the rejection.
        """
        token_ids = None if isinstance(prompt, int) else list(prompt)
        prompt_tokens = prompt if isinstance(prompt, int) else len(prompt)
        self._check_request(request_id, prompt_tokens, max_tokens)
        request = RequestState(
            request_id, prompt_tokens, max_tokens, priority, self.next_step, token_ids=token_ids, salt=salt
        )
        request.rank = self.policy.rank(request)
        self._record_arrival(request, self.next_step if arrival_time is None else arrival_time)
        if reason := self._reason_to_reject(request):
            self.trace_builder.add(Kind.REJECT, request.order, step=request.arrival_step)
            raise RequestRejectedError(f"request {request_id!r} rejected: {reason}")
        self.requests[request_id] = request
        self.waiting.push(request)
        return request

    def _check_request(self, name: str, prompt_tokens: int, max_tokens: int) -> None:
        if name in self.requests:
            raise CourseError(f"request {name!r} is already here: give each request an id of its own")
        if prompt_tokens < 1:
            raise CourseError(f"request {name!r} has a prompt of {prompt_tokens} tokens: give at least 1")
        if max_tokens < 1:
            raise CourseError(f"request {name!r} asks for {max_tokens} tokens: a request gets at least 1")

    def _record_arrival(self, request: RequestState, arrival_time: float) -> None:
        request.order = self.trace_builder.add_request(request.prompt_tokens, arrival_time, request.priority)
        self.trace_builder.add(Kind.ARRIVE, request.order, step=request.arrival_step)

    def _reason_to_reject(self, request: RequestState) -> str:
        """Why the request could never finish; empty if it could."""
        total = request.prompt_tokens + request.max_tokens
        if self.max_model_len is not None and total > self.max_model_len:
            return f"{total} tokens of prompt and output, the limit is {self.max_model_len}: shorten it"
        blocks = self.kv_cache.blocks_for(max(request.most_stored_tokens, self.policy.reserve(self, request)))
        if blocks > self.kv_cache.capacity:
            return (
                f"it needs {blocks} blocks, but there are {self.kv_cache.capacity}: shorten it or add blocks"
            )
        return ""

    def abort(self, request_id: str) -> RequestState:
        """Remove a request, running or waiting, at once. Raises `CourseError` for an id that is not here."""
        if request_id not in self.requests:
            raise CourseError(f"no request {request_id!r} to abort: it never came, or it is done")
        request = self.requests[request_id]
        step = max(self.next_step - 1, request.arrival_step)
        if request.is_running:
            self.running.remove(request)
        self._end(request, RequestStatus.ABORTED, Kind.ABORT, step)
        return request

    def fork(
        self, request_id: str, new_id: str, max_tokens: int | None = None, arrival_time: float | None = None
    ) -> RequestState:
        """Add a second request with the same prompt, for another sample of its answer.

        If a slot and memory are free, it runs from the next step on and shares the computed blocks of the prompt,
        up to the prompt's last token: it computes that one itself, to sample a first token of its own. Otherwise it
        waits in the queue like any other.

        Args:
            request_id: the request whose prompt it takes.
            new_id: its own id.
            max_tokens: by default the parent's.
            arrival_time: as `add_request` takes it.

        Raises:
            CourseError: for an unknown `request_id`, and as `add_request` does.
        """
        if request_id not in self.requests:
            raise CourseError(f"no request {request_id!r} to fork: it never came, or it is done")
        parent = self.requests[request_id]
        ids, count = parent.token_ids, parent.prompt_tokens
        prompt, most = count if ids is None else ids[:count], max_tokens or parent.max_tokens
        child = self.add_request(
            new_id, prompt, most, priority=parent.priority, salt=parent.salt, arrival_time=arrival_time
        )
        shared = min(parent.num_computed_tokens, parent.prompt_tokens - 1)
        if parent.is_running and shared and self._free_slots and self._fork_fits(child, shared):
            self.waiting.remove(child)
            self.kv_cache.fork(parent, child, shared)
            # It writes in the next step, so a shared half-full block is copied now.
            self._copies += self.kv_cache.append(child, self._fork_memory(child))
            self._start(child, shared)
        return child

    def _fork_memory(self, child: RequestState) -> int:
        return max(self.policy.reserve(self, child), child.num_tokens)

    def _fork_fits(self, child: RequestState, shared: int) -> bool:
        full_blocks = shared // max(1, self.kv_cache.block_size) * self.kv_cache.block_size
        return not self._blocks_short(self._fork_memory(child) - full_blocks, prefix=())

    # ----- a step -----

    def schedule(self) -> StepPlan:
        """Plan the next step: running requests first, then as many waiting ones as fit.

        Raises `CourseError` if `max_in_flight` planned steps have not been reported yet.
        """
        if len(self._in_flight) >= self.max_in_flight:
            raise CourseError(f"step {self._in_flight[0].step} has not been reported: call update first")
        plan = StepPlan(self.next_step, self.token_budget, copies=self._copies)
        self._copies = []
        self._preempt_for_waiting(plan)
        preempted = len(plan.preempted)
        if self.policy.pauses_decode(self):
            self._serve(plan, [request for request in self.running if request.is_prefilling])
            self._admit_waiting(plan)
        if plan.budget == self.token_budget:  # unless this is a step for prompts alone
            self._serve(plan, list(self.running))
            if len(plan.preempted) == preempted:  # otherwise memory is short: admit none
                self._admit_waiting(plan)
        return self._close(plan)

    def _close(self, plan: StepPlan) -> StepPlan:
        """Complete the plan's counts, and put preempted requests back in the queue."""
        for request in plan.preempted:
            self.waiting.push(request)
            plan.held_by = plan.held_by or HeldBy.PREEMPTION
        plan.waiting, plan.running = len(self.waiting), len(self.running)
        plan.free_blocks = self.kv_cache.num_free
        self.steps_since_prefill = 0 if plan.prefills else self.steps_since_prefill + 1
        if self._watch:
            for reader, other, blocks in self._watch.overheard(plan.scheduled, plan.copies):
                self.trace_builder.overhear(plan.step, reader, other, blocks)
        self.next_step += 1
        self._in_flight.append(plan)
        return plan

    def _serve(self, plan: StepPlan, order: list[RequestState]) -> None:
        """Schedule tokens for running requests, in order of rank.

        One token for each decode is set aside before any prompt gets its share, so a prompt, however long, does not
        delay the requests that decode.
        """
        set_aside = sum([not request.is_prefilling for request in order])
        for position, request in enumerate(order):
            if not request.is_running:
                continue  # preempted for one of those before it
            if request.is_prefilling:
                tokens = self._chunk(request, request.num_new_tokens, plan.budget - set_aside)
            else:
                set_aside -= 1
                tokens = 0 if request.is_exhausted else 1  # its last token may be in flight already
            if tokens and self._make_room(plan, request, tokens, order, position):
                self._schedule_tokens(plan, request, tokens)

    def _chunk(self, request: RequestState, num_new: int, budget: int) -> int:
        """The policy's answer, kept between 0 and what is possible."""
        return max(0, min(self.policy.chunk(self, request, num_new, budget), num_new, budget))

    def _schedule_tokens(self, plan: StepPlan, request: RequestState, tokens: int) -> None:
        """Write the request's share into the plan. Its tokens count as computed from now on."""
        computed, is_prefill = request.num_computed_tokens, request.is_prefilling
        yields = tokens == request.num_new_tokens  # the next token is sampled from the last known one
        row = ScheduledRequest(
            request, request.slot, computed, tokens, request.block_table, is_prefill, yields
        )
        (plan.prefills if is_prefill else plan.decodes).append(row)
        plan.budget -= tokens
        request.num_computed_tokens = computed + tokens
        request.num_pending_tokens += yields

    # ----- admission -----

    def _admit_waiting(self, plan: StepPlan) -> None:
        """Admit requests in order of the queue until one has to wait; the plan says what for."""
        plan.held_by, plan.blocks_short = HeldBy.NOTHING, 0
        if self.waiting and self._free_slots and not self.policy.may_admit(self):
            plan.held_by = self.policy.waits_for(self)
        while self.waiting and not plan.held_by:
            plan.held_by = self._admit(plan, self.policy.choose(self)) if self._free_slots else HeldBy.SLOTS

    def _admit(self, plan: StepPlan, request: RequestState) -> HeldBy:
        """Admit one request and schedule its first tokens, or say what it has to wait for."""
        prefix = self.kv_cache.cached_prefix(request)
        computed = self._computed_at_admission(request, prefix)
        tokens = self._chunk(request, request.num_tokens - computed, plan.budget)
        memory = max(self.policy.reserve(self, request), computed + tokens)
        if held_by := self._held_by(plan, tokens, memory, prefix):
            return held_by
        self.waiting.remove(request)
        self.kv_cache.allocate(request, memory, prefix)
        (plan.resumed if request.num_preemptions else plan.admitted).append(request)
        self._start(request, computed)
        if tokens:
            self._schedule_tokens(plan, request, tokens)
        return HeldBy.NOTHING

    def _held_by(self, plan: StepPlan, tokens: int, memory: int, prefix: Sequence[int]) -> HeldBy:
        """What keeps out a request that would compute `tokens` in this step and hold `memory` tokens of K/V."""
        if not (tokens or self.policy.admits_without_budget):
            return HeldBy.BUDGET
        plan.blocks_short = self._blocks_short(memory, prefix)
        return HeldBy.BLOCKS if plan.blocks_short else HeldBy.NOTHING

    def _computed_at_admission(self, request: RequestState, prefix: Sequence[int]) -> int:
        """Tokens that are stored without computing them: a cached prefix, or a free prompt up to its last token."""
        return request.num_tokens - 1 if self.free_prefill else len(prefix) * self.kv_cache.block_size

    def _blocks_short(self, memory: int, prefix: Sequence[int]) -> int:
        """Blocks missing to admit `memory` tokens. Without a running request there is no watermark."""
        watermark = self.policy.watermark(self) if self.running else 0
        return max(0, self.kv_cache.blocks_short(memory, prefix, watermark))

    def _start(self, request: RequestState, computed: int) -> None:
        """Give the request a slot, with `computed` of its tokens stored."""
        request.status = RequestStatus.RUNNING
        request.slot = heapq.heappop(self._free_slots)
        request.num_computed_tokens = computed
        request.num_cached_tokens = 0 if self.free_prefill else computed
        request.prefill_target = 0 if self.free_prefill else request.num_tokens
        insort(self.running, request, key=lambda other: other.key)
        blocks = len(request.block_table)
        self.trace_builder.add(
            Kind.BOARD, request.order, request.slot, request.num_cached_tokens, blocks, self.next_step
        )

    # ----- memory and preemption -----

    def _make_room(
        self, plan: StepPlan, request: RequestState, tokens: int, order: Sequence[RequestState], position: int
    ) -> bool:
        """Grow the request's memory by `tokens`, preempting others if need be; False if it was preempted itself.

        Args:
            order: the running requests in order of rank; `request` is at `position`, and this step has not served
                those after it yet.
        """
        end = request.num_computed_tokens + tokens
        if self.kv_cache.has_room(request, end):
            return True
        while not self.kv_cache.can_append(request, end):
            candidates = [other for other in order[position:] if other.is_running]
            victim = self.policy.victim(self, candidates, request)
            self._preempt(plan, request if victim is None else victim, candidates)
            if not request.is_running:
                return False
        plan.copies += self.kv_cache.append(request, end)
        return True

    def _preempt_for_waiting(self, plan: StepPlan) -> None:
        """Preempt running requests for the first of the queue, if the policy says so."""
        while self.waiting and self.running:
            request = self.waiting.peek()
            victim = self.policy.victim(self, self.running, request)
            if victim is None or self._could_admit(request):
                return
            self._preempt(plan, victim, self.running)

    def _could_admit(self, request: RequestState) -> bool:
        """Whether a slot and memory are free for the request as things are."""
        prefix = self.kv_cache.cached_prefix(request)
        return bool(self._free_slots) and not self._blocks_short(self.policy.reserve(self, request), prefix)

    def _preempt(self, plan: StepPlan, request: RequestState, candidates: Sequence[RequestState]) -> None:
        """Preempt a request: free its blocks, keep its tokens, whose K/V is computed again when it resumes."""
        if request not in candidates:
            raise CourseError(f"policy {self.policy.name!r} would preempt {request.id!r}: choose a candidate")
        plan.vacated_slots.append(request.slot)
        self.running.remove(request)
        self._release(request)
        request.status = RequestStatus.WAITING
        request.num_computed_tokens = request.prefill_target = 0
        request.num_preemptions += 1
        plan.preempted.append(request)  # back in the queue only when the step is planned

    def _release(self, request: RequestState) -> None:
        """Free the request's slot and blocks at once.

        A step in flight may still read the blocks. They are next written in a later step, and steps run in order.
        """
        self.kv_cache.free(request)
        if request.slot != NO_SLOT:
            heapq.heappush(self._free_slots, request.slot)
        request.slot = NO_SLOT

    # ----- results of a step -----

    def update(
        self,
        plan: StepPlan,
        sampled_tokens: Mapping[str, int],
        stopped: Collection[str] = (),
        *,
        start: float | None = None,
        duration: float = 1.0,
    ) -> list[RequestState]:
        """Report the results of a planned step. Steps are reported in the order they were planned.

        Args:
            plan: the oldest plan that has not been reported.
            sampled_tokens: a token id for each of `plan.sampled_ids`.
            stopped: those of them that end with this token before `max_tokens` (at a stop token or string).
            start, duration: when the step began and how long it took, in the Trace's clock.

        Returns:
            The requests that are finished, in order of `plan.scheduled`.

        Raises:
            CourseError: for another plan, a missing token, or a stopped request without one; nothing is changed.
        """
        self._check_report(plan, sampled_tokens, stopped)
        self._in_flight.popleft()
        for request, slot in zip(plan.preempted, plan.vacated_slots, strict=True):
            if not request.is_done:  # recorded now, since the builder's step is the plan's only now
                self.trace_builder.add(Kind.PREEMPT, request.order, slot)
        finished = []
        for row in plan.scheduled:
            request = row.request
            if request.is_done:
                continue  # aborted while the step was in flight
            self._record_tokens(row)
            if self.kv_cache.prefix_caching and request.is_running:
                self.kv_cache.commit(request, row.seq_len)
            if row.yields_token and self._append_output(
                request, sampled_tokens[request.id], request.id in stopped
            ):
                self._end(request, RequestStatus.FINISHED, Kind.FINISH, plan.step, row.slot)
                finished.append(request)
        if finished:
            self.running = [request for request in self.running if request.is_running]
        counts = plan.waiting, plan.running, plan.free_blocks
        self.trace_builder.end_step(*counts, start, duration, plan.held_by, plan.blocks_short)
        return finished

    def _check_report(self, plan: StepPlan, sampled: Mapping[str, int], stopped: Collection[str]) -> None:
        if not self._in_flight or plan is not self._in_flight[0]:
            state = f"step {self._in_flight[0].step} is next" if self._in_flight else "every plan is reported"
            raise CourseError(
                f"update with the plan of step {plan.step}, but {state}: report each once, in order"
            )
        if missing := [name for name in plan.sampled_ids if name not in sampled]:
            raise CourseError(f"no token for request {missing[0]!r} in step {plan.step}: give each one")
        if stopped and (unknown := set(stopped) - set(plan.sampled_ids)):
            raise CourseError(f"{min(unknown)!r} got no token in step {plan.step}: it cannot stop there")

    def _record_tokens(self, row: ScheduledRequest) -> None:
        order, blocks = row.request.order, len(row.block_table)
        if row.is_prefill:
            self.trace_builder.add(Kind.PREFILL, order, row.slot, row.num_scheduled_tokens, blocks)
        if row.yields_token:
            self.trace_builder.add(Kind.DECODE, order, row.slot, 1, blocks)

    def _append_output(self, request: RequestState, token: int, stops: bool) -> bool:
        """Add an output token to the request; True if it is the last."""
        request.num_pending_tokens -= 1
        request.num_output_tokens += 1
        if request.token_ids is not None:
            request.token_ids.append(token)
        return stops or request.num_output_tokens >= request.max_tokens

    def _end(
        self, request: RequestState, status: RequestStatus, kind: Kind, step: int, slot: int | None = None
    ) -> None:
        """Record the end of a request, finished or aborted; free what it holds and forget it.

        `slot` is the one it had in `step`, if it may have been preempted since.
        """
        self.trace_builder.add(kind, request.order, request.slot if slot is None else slot, step=step)
        waited = request.status is RequestStatus.WAITING
        self._release(request)
        request.status = status
        if waited:
            self.waiting.remove(request)
        del self.requests[request.id]

    def roll_back(
        self, requests: Sequence[RequestState], kv_cache: KVCache | UnlimitedKVCache
    ) -> list[RequestState]:
        """Go on from the last reported step, whatever has been cut short since then, wherever that was.

        Those of `requests` that had not finished by then wait in the queue, with the tokens that the Trace says
        they got, and compute their K/V again. Safe to call again.

        Args:
            requests: who goes on; anyone else is forgotten.
            kv_cache: an allocator of which nothing is held.

        Returns:
            Those of `requests` that are not finished.
        """
        given = self.trace_builder.roll_back([request.order for request in requests])
        self.next_step = self.trace_builder.step
        going_on = [request for request in requests if request.order in given]
        waiting = RequestQueue()
        for request in going_on:
            request.put_back(given[request.order], self.next_step)
            waiting.push(request)
        self.kv_cache, self.waiting, self.running = kv_cache, waiting, []
        self._watch = TableWatch(kv_cache.block_size) if is_foreign(kv_cache) else None
        self._free_slots, self._copies = list(range(self.slots)), []
        self._in_flight.clear()
        self.requests = {request.id: request for request in going_on}
        return going_on

    def build_trace(self) -> Trace:
        """The record of every step reported so far."""
        return self.trace_builder.build()


def check_budget(token_budget: int | None, slots: int) -> int:
    """The budget (a huge one for None), or a `CourseError` if there is less than a token for each slot."""
    if token_budget is None:
        return NO_LIMIT
    if token_budget < slots:
        raise CourseError(f"a token budget of {token_budget} for {slots} slots: give at least {slots}")
    return token_budget


def check_model_len(max_model_len: int | None) -> int | None:
    """`max_model_len` itself, or a `CourseError` if it is too short for a prompt and an answer."""
    if max_model_len is not None and max_model_len < 2:
        raise CourseError(f"a model length of {max_model_len}: a prompt and an answer need at least 2 tokens")
    return max_model_len


def check_in_flight(max_in_flight: int) -> int:
    """`max_in_flight` itself, or a `CourseError` if it is not 1 or 2.

    Planned further ahead, the tokens of a resumed request would not be known yet.
    """
    if max_in_flight not in (1, 2):
        raise CourseError(f"{max_in_flight} steps in flight: allow 1 or 2")
    return max_in_flight
