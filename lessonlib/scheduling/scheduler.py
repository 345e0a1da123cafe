"""The scheduler: each step, who computes how many tokens, in which blocks.

    plan = scheduler.schedule()                 # who rides, and how far
    tokens = run(plan)                          # a step-cost model, or a real model
    scheduler.update(plan, tokens)              # what came out; who has arrived

A step has one budget of tokens and no phases. Every request has `num_tokens` tokens, of which
`num_computed_tokens` are computed, and the scheduler only ever lets the second number catch up with the
first: by many at once while a prompt is read, by one when it is decoding. (The idea is vLLM V1's.)

The scheduler sees token counts and block ids. It never sees a tensor.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from lessonlib.errors import CourseError
from lessonlib.scheduling.block_pool import BlockPool
from lessonlib.scheduling.kv_cache import Copy, KVCache, UnlimitedKVCache
from lessonlib.scheduling.policy import Policy
from lessonlib.scheduling.request import RequestQueue, RequestRejectedError, RequestState, RequestStatus
from lessonlib.scheduling.watch import TableWatch, is_foreign
from lessonlib.trace import NO_SLOT, Header, Kind, Trace, TraceBuilder
from lessonlib.utilization import check_slots

NO_LIMIT = 1 << 62


@dataclass(slots=True)
class ScheduledRequest:
    """One request's share of a step.

    Attributes:
        request: its state; `request.token_ids[num_computed_tokens:][:num_scheduled_tokens]` are the inputs,
            where token ids are known.
        slot: the slot it rides in.
        num_computed_tokens: tokens already stored before this step: the position of the first input.
        num_scheduled_tokens: tokens to compute in this step.
        block_table: its blocks, in order of position. It grows at its end as the request does; read, do not
            change.
        is_prefill: whether it is reading tokens that it boarded with.
        yields_token: whether the last of its tokens is to be sampled from.
    """

    request: RequestState
    slot: int
    num_computed_tokens: int
    num_scheduled_tokens: int
    block_table: list[int]
    is_prefill: bool
    yields_token: bool

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def seq_len(self) -> int:
        """Tokens that attention sees: all up to the last one of this step."""
        return self.num_computed_tokens + self.num_scheduled_tokens


@dataclass(slots=True)
class StepPlan:
    """What one step is to do.

    Attributes:
        step: its number, from 0.
        budget: tokens that were left over.
        decodes, prefills: the requests that compute something. Decodes have one token each.
        boarded, resumed: requests that boarded in this step for the first time, or again after a preemption.
            `request.num_cached_tokens` says how much of each was found in the prefix cache.
        preempted, vacated: requests thrown out in this step, and the slots they had. They hold no blocks any
            more.
        copies: (source, destination) blocks to copy before the step runs.
        waiting, running, free_blocks: counts after boarding.
    """

    step: int
    budget: int
    decodes: list[ScheduledRequest] = field(default_factory=list)
    prefills: list[ScheduledRequest] = field(default_factory=list)
    boarded: list[RequestState] = field(default_factory=list)
    resumed: list[RequestState] = field(default_factory=list)
    preempted: list[RequestState] = field(default_factory=list)
    vacated: list[int] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    waiting: int = 0
    running: int = 0
    free_blocks: int = 0

    @property
    def scheduled(self) -> list[ScheduledRequest]:
        """Everyone's share of the step, decodes first."""
        return self.decodes + self.prefills

    @property
    def num_tokens(self) -> int:
        """Tokens that the step computes."""
        return len(self.decodes) + sum(row.num_scheduled_tokens for row in self.prefills)

    @property
    def sampled_rows(self) -> list[ScheduledRequest]:
        """The rows that get a token from this step, in order of `scheduled`."""
        return [row for row in self.scheduled if row.yields_token]

    @property
    def sampled_ids(self) -> list[str]:
        """The requests that get a token from this step, in order of `scheduled`."""
        return [row.request.id for row in self.sampled_rows]


class Scheduler:
    """Admission, chunked prefill, preemption and release, over paged memory, under one `Policy`.

    Args:
        slots: how many requests may be on board at once.
        num_blocks: K/V blocks in memory, the null block included; 0: memory is no question.
        block_size: tokens a block.
        token_budget: tokens a step may compute, at least one a slot; None: no limit.
        policy: what it decides otherwise than `Policy`.
        max_model_len: longest prompt and output together, in tokens; None: as memory allows.
        prefix_caching: share blocks between requests that begin alike (where token ids are given).
        hash_seed: makes prefix hashes repeatable; random unless given.
        free_prefill: prompts cost nothing, as in the slot scheduler.
        max_in_flight: steps that may be planned before the first of them is reported; 2 lets the host prepare
            a step while the device computes the one before.
        kv_cache: another allocator in place of the paged one. One that is not the course's is watched: the
            Trace says who reads whose words.
        clock, maker: for the Trace's header.

    Attributes:
        requests: requests that are not done, by id.
        running: those on board, first served first.
        waiting: those that are not.
        still_to_come: requests that the driver knows will arrive; only a policy that waits for them looks.
        steps_since_prefill: steps planned since one read any prompt.
        trace: the record so far; `trace.build()` makes a `Trace` of it.

    Raises:
        CourseError: for sizes that nothing could run with.
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
        self.policy = policy or Policy()
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
        self.trace = TraceBuilder(
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
        """Whether anyone is on board or waiting."""
        return bool(self.requests)

    @property
    def num_free_slots(self) -> int:
        return len(self._free_slots)

    # ----- coming and going -----

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
            prompt: its length in tokens, or its token ids.
            max_tokens: output tokens it will get at most.
            priority: smaller is more urgent, to policies that look at it.
            salt: a tenant's name; prefixes are shared only within it.
            arrival_time: in the Trace's clock; by default the next step.

        Raises:
            CourseError: for an id in use, an empty prompt or no tokens to give; nothing is recorded.
            RequestRejectedError: for a request that could never run; the Trace records the rejection.
        """
        token_ids = None if isinstance(prompt, int) else list(prompt)
        prompt_tokens = prompt if isinstance(prompt, int) else len(prompt)
        self._check_request(request_id, prompt_tokens, max_tokens)
        request = RequestState(
            request_id, prompt_tokens, max_tokens, priority, self.next_step, token_ids=token_ids, salt=salt
        )
        request.rank = self.policy.rank(request)
        self._announce(request, self.next_step if arrival_time is None else arrival_time)
        if reason := self._why_never(request):
            self.trace.add(Kind.REJECT, request.order, step=request.arrival_step)
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

    def _announce(self, request: RequestState, arrival_time: float) -> None:
        request.order = self.trace.add_request(request.prompt_tokens, arrival_time, request.priority)
        self.trace.add(Kind.ARRIVE, request.order, step=request.arrival_step)

    def _why_never(self, request: RequestState) -> str:
        """Why no step could ever finish the request; empty where one could."""
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
        """Drop a request at once, wherever it is. Raises `CourseError` for an id that is not here."""
        if request_id not in self.requests:
            raise CourseError(f"no request {request_id!r} to abort: it never came, or it is done")
        request = self.requests[request_id]
        step = max(self.next_step - 1, request.arrival_step)
        if request.is_running:
            self.running.remove(request)
        self._leave(request, RequestStatus.ABORTED, Kind.ABORT, step)
        return request

    def fork(self, request_id: str, new_id: str, max_tokens: int | None = None) -> RequestState:
        """A second request with the same prompt, for another sample of its answer.

        Where a slot and memory allow, it boards for the next step and shares the blocks of the prompt as far
        as they are computed, all but its last token: computing that one gives the new request a first token
        of its own. Otherwise it waits in the queue like any other.

        Raises `CourseError` for an unknown parent, and as `add_request` does.
        """
        if request_id not in self.requests:
            raise CourseError(f"no request {request_id!r} to fork: it never came, or it is done")
        parent = self.requests[request_id]
        ids = parent.token_ids
        child = self.add_request(
            new_id,
            parent.prompt_tokens if ids is None else ids[: parent.prompt_tokens],
            parent.max_tokens if max_tokens is None else max_tokens,
            priority=parent.priority,
            salt=parent.salt,
        )
        shared = min(parent.num_computed_tokens, parent.prompt_tokens - 1)
        if parent.is_running and shared and self._free_slots and self._fork_fits(child, shared):
            self.waiting.remove(child)
            self.kv_cache.fork(parent, child, shared)
            # It writes in the very next step, so the copy of a half-full block is due already.
            self._copies += self.kv_cache.append(child, self._fork_memory(child))
            self._take_seat(child, shared)
        return child

    def _fork_memory(self, child: RequestState) -> int:
        return max(self.policy.reserve(self, child), child.num_tokens)

    def _fork_fits(self, child: RequestState, shared: int) -> bool:
        full_blocks = shared // max(1, self.kv_cache.block_size) * self.kv_cache.block_size
        return self._fits(self._fork_memory(child) - full_blocks, prefix=())

    # ----- a step -----

    def schedule(self) -> StepPlan:
        """Plan the next step. Raises `CourseError` where too many planned steps have not been reported."""
        if len(self._in_flight) >= self.max_in_flight:
            raise CourseError(
                f"step {self._in_flight[0].step} has not been reported: call update with its plan"
            )
        plan = StepPlan(self.next_step, self.token_budget, copies=self._copies)
        self._copies = []
        self._make_way(plan)
        made_way = len(plan.preempted)
        if self.policy.pauses_decode(self):
            self._serve(plan, [request for request in self.running if request.is_prefilling])
            self._board(plan)
        if plan.budget == self.token_budget:
            self._serve(plan, list(self.running))
            if len(plan.preempted) == made_way:  # memory is short: nobody boards
                self._board(plan)
        return self._close(plan)

    def _close(self, plan: StepPlan) -> StepPlan:
        for request in plan.preempted:
            self.waiting.push(request)
        plan.waiting, plan.running = len(self.waiting), len(self.running)
        plan.free_blocks = self.kv_cache.num_free
        self.steps_since_prefill = 0 if plan.prefills else self.steps_since_prefill + 1
        if self._watch:
            for reader, other, blocks in self._watch.look(plan.scheduled, plan.copies):
                self.trace.overhear(plan.step, reader, other, blocks)
        self.next_step += 1
        self._in_flight.append(plan)
        return plan

    def _serve(self, plan: StepPlan, order: list[RequestState]) -> None:
        """Those on board get their tokens, in order of rank.

        Each decode's token is set aside before any prompt takes its share: no prompt, however long, holds up
        those who are already writing.
        """
        set_aside = sum([not request.is_prefilling for request in order])
        for place, request in enumerate(order):
            if not request.is_running:
                continue  # thrown out a moment ago
            if request.is_prefilling:
                tokens = self._chunk(request, request.num_new_tokens, plan.budget - set_aside)
            else:
                set_aside -= 1
                tokens = 0 if request.is_exhausted else 1
            if tokens and self._make_room(plan, request, tokens, order, place):
                self._give_tokens(plan, request, tokens)

    def _chunk(self, request: RequestState, num_new: int, budget: int) -> int:
        return max(0, min(self.policy.chunk(self, request, num_new, budget), num_new, budget))

    def _give_tokens(self, plan: StepPlan, request: RequestState, tokens: int) -> None:
        """Write the request's share into the plan. What it computes counts as computed from here on."""
        computed, is_prefill = request.num_computed_tokens, request.is_prefilling
        yields = tokens == request.num_new_tokens
        row = ScheduledRequest(
            request, request.slot, computed, tokens, request.block_table, is_prefill, yields
        )
        (plan.prefills if is_prefill else plan.decodes).append(row)
        plan.budget -= tokens
        request.num_computed_tokens = computed + tokens
        request.num_pending_tokens += yields

    # ----- boarding -----

    def _board(self, plan: StepPlan) -> None:
        """Those who wait board, first in the queue first, while the doors, slots, memory and budget allow."""
        if not self.waiting or not self.policy.may_board(self):
            return
        while self.waiting and self._free_slots and self._admit(plan, self.waiting.peek()):
            pass

    def _admit(self, plan: StepPlan, request: RequestState) -> bool:
        prefix = self.kv_cache.cached_prefix(request)
        computed = self._computed_at_boarding(request, prefix)
        tokens = self._chunk(request, request.num_tokens - computed, plan.budget)
        memory = max(self.policy.reserve(self, request), computed + tokens)
        if not (tokens or self.policy.seats_ahead) or not self._fits(memory, prefix):
            return False
        self.waiting.pop()
        self.kv_cache.allocate(request, memory, prefix)
        (plan.resumed if request.num_preemptions else plan.boarded).append(request)
        self._take_seat(request, computed)
        if tokens:
            self._give_tokens(plan, request, tokens)
        return True

    def _computed_at_boarding(self, request: RequestState, prefix: Sequence[int]) -> int:
        return request.num_tokens - 1 if self.free_prefill else len(prefix) * self.kv_cache.block_size

    def _fits(self, memory: int, prefix: Sequence[int]) -> bool:
        """Whether there is memory to board. The watermark is for those on board: an empty car needs none."""
        watermark = self.policy.watermark(self) if self.running else 0
        return self.kv_cache.can_allocate(memory, prefix, watermark)

    def _take_seat(self, request: RequestState, computed: int) -> None:
        request.status = RequestStatus.RUNNING
        request.slot = heapq.heappop(self._free_slots)
        request.num_computed_tokens = computed
        request.num_cached_tokens = 0 if self.free_prefill else computed
        request.prefill_target = 0 if self.free_prefill else request.num_tokens
        insort(self.running, request, key=lambda other: other.key)
        blocks = len(request.block_table)
        self.trace.add(
            Kind.BOARD, request.order, request.slot, request.num_cached_tokens, blocks, self.next_step
        )

    # ----- making room -----

    def _make_room(
        self, plan: StepPlan, request: RequestState, tokens: int, order: Sequence[RequestState], place: int
    ) -> bool:
        """Grow the request's memory by `tokens`, throwing others out if need be; False: it went itself."""
        end = request.num_computed_tokens + tokens
        if self.kv_cache.has_room(request, end):
            return True
        while not self.kv_cache.can_append(request, end):
            candidates = [other for other in order[place:] if other.is_running]
            victim = self.policy.victim(self, candidates, request)
            self._preempt(plan, request if victim is None else victim, candidates)
            if not request.is_running:
                return False
        plan.copies += self.kv_cache.append(request, end)
        return True

    def _make_way(self, plan: StepPlan) -> None:
        """Where the policy says so, those on board make way for the first in the queue."""
        while self.waiting and self.running:
            request = self.waiting.peek()
            victim = self.policy.victim(self, self.running, request)
            if victim is None or self._has_place_for(request):
                return
            self._preempt(plan, victim, self.running)

    def _has_place_for(self, request: RequestState) -> bool:
        prefix = self.kv_cache.cached_prefix(request)
        return bool(self._free_slots) and self._fits(self.policy.reserve(self, request), prefix)

    def _preempt(self, plan: StepPlan, request: RequestState, candidates: Sequence[RequestState]) -> None:
        """Throw a request out. Its memory goes, its words stay: it computes both again when it resumes."""
        if request not in candidates:
            raise CourseError(f"policy {self.policy.name!r} would preempt {request.id!r}: choose a candidate")
        plan.vacated.append(request.slot)
        self.running.remove(request)
        self._release(request)
        request.status = RequestStatus.WAITING
        request.num_computed_tokens = request.prefill_target = 0
        request.num_preemptions += 1
        plan.preempted.append(request)  # and into the queue when the step is planned, not before

    def _release(self, request: RequestState) -> None:
        """Slot and blocks are free at once.

        A step in flight may still read them; whoever writes them next does so in a later step, and steps run
        in order.
        """
        self.kv_cache.free(request)
        if request.slot != NO_SLOT:
            heapq.heappush(self._free_slots, request.slot)
        request.slot = NO_SLOT

    # ----- what came out -----

    def update(
        self,
        plan: StepPlan,
        sampled_tokens: Mapping[str, int],
        stopped: Collection[str] = (),
        *,
        start: float | None = None,
        duration: float = 1.0,
    ) -> list[RequestState]:
        """Report what a planned step gave. Steps are reported in the order they were planned.

        Args:
            plan: the oldest plan that has not been reported.
            sampled_tokens: a token for each of `plan.sampled_ids`.
            stopped: those of them whose token is their last, whatever `max_tokens` says (a stop token or
                string).
            start, duration: when the step began and how long it took, in the Trace's clock.

        Returns:
            The requests that are finished, in order of `plan.scheduled`.

        Raises:
            CourseError: for another plan, a missing token or a stop that is none; nothing is changed.
        """
        self._check_report(plan, sampled_tokens, stopped)
        self._in_flight.popleft()
        for request, slot in zip(plan.preempted, plan.vacated, strict=True):
            if not request.is_done:
                self.trace.add(Kind.PREEMPT, request.order, slot)
        finished = []
        for row in plan.scheduled:
            request = row.request
            if request.is_done:
                continue  # it left while the step was in flight
            self._record(row)
            if self.kv_cache.prefix_caching and request.is_running:
                self.kv_cache.commit(request, row.seq_len)
            if row.yields_token and self._give_word(
                request, sampled_tokens[request.id], request.id in stopped
            ):
                self._leave(request, RequestStatus.FINISHED, Kind.FINISH, plan.step, row.slot)
                finished.append(request)
        if finished:
            self.running = [request for request in self.running if request.is_running]
        self.trace.end_step(plan.waiting, plan.running, plan.free_blocks, start, duration)
        return finished

    def _check_report(self, plan: StepPlan, sampled: Mapping[str, int], stopped: Collection[str]) -> None:
        if not self._in_flight or plan is not self._in_flight[0]:
            due = f"step {self._in_flight[0].step}" if self._in_flight else "none"
            raise CourseError(
                f"update with the plan of step {plan.step}, but {due} is due: report each plan once"
            )
        if missing := [name for name in plan.sampled_ids if name not in sampled]:
            raise CourseError(
                f"no token for request {missing[0]!r} of step {plan.step}: give one for each sampled id"
            )
        if stopped and (unknown := set(stopped) - set(plan.sampled_ids)):
            raise CourseError(
                f"request {min(unknown)!r} got no token in step {plan.step}: it cannot stop there"
            )

    def _record(self, row: ScheduledRequest) -> None:
        order, blocks = row.request.order, len(row.block_table)
        if row.is_prefill:
            self.trace.add(Kind.PREFILL, order, row.slot, row.num_scheduled_tokens, blocks)
        if row.yields_token:
            self.trace.add(Kind.DECODE, order, row.slot, 1, blocks)

    def _give_word(self, request: RequestState, token: int, stops: bool) -> bool:
        """The request's next output token; True where it is the last."""
        request.num_pending_tokens -= 1
        request.num_output_tokens += 1
        if request.token_ids is not None:
            request.token_ids.append(token)
        return stops or request.num_output_tokens >= request.max_tokens

    def _leave(
        self, request: RequestState, status: RequestStatus, kind: Kind, step: int, slot: int | None = None
    ) -> None:
        self.trace.add(kind, request.order, request.slot if slot is None else slot, step=step)
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
        given = self.trace.roll_back([request.order for request in requests])
        self.next_step = self.trace.step
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
        return self.trace.build()


def check_budget(token_budget: int | None, slots: int) -> int:
    """The budget (a huge one for None), or a `CourseError` where a request on board could get no token."""
    if token_budget is None:
        return NO_LIMIT
    if token_budget < slots:
        raise CourseError(
            f"a token budget of {token_budget} for {slots} slots: "
            f"everyone on board needs a token a step, so give at least {slots}"
        )
    return token_budget


def check_model_len(max_model_len: int | None) -> int | None:
    """`max_model_len` itself, or a `CourseError` where no prompt could get an answer."""
    if max_model_len is not None and max_model_len < 2:
        raise CourseError(
            f"a model length of {max_model_len}: a prompt and its answer need at least 2 tokens"
        )
    return max_model_len


def check_in_flight(max_in_flight: int) -> int:
    """`max_in_flight` itself, or a `CourseError`: further ahead, a resumed request's words are not known."""
    if max_in_flight not in (1, 2):
        raise CourseError(f"{max_in_flight} steps in flight: allow 1 or 2")
    return max_in_flight
