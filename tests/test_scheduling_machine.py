"""Random rides through every policy, against a memory that remembers whose words it holds.

The `Device` stands in for the data plane. Each position of its memory holds a digest of everything that its
token depends on: the salt and all tokens up to it. A step reads what attention would read and fails on the
first word of somebody else's. Hypothesis makes up arrivals, aborts, forks, priorities and pool sizes; the
shortest failing ride is saved as a Trace beside Hypothesis's own examples.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lessonlib.errors import CourseError
from lessonlib.metrics import metrics
from lessonlib.scheduling.block_pool import NULL_BLOCK
from lessonlib.scheduling.plan import StepPlan
from lessonlib.scheduling.policies import POLICIES
from lessonlib.scheduling.request import RequestRejectedError, RequestState, RequestStatus
from lessonlib.scheduling.scheduler import Scheduler

FAILING = Path(".hypothesis")
EXAMPLES, RULES = 120, 40  # of each policy: rides, and what may happen in each
STEPS_RUN: Counter[str] = Counter()
SEEN: Counter[str] = Counter()  # that the rides were eventful enough to mean anything


def context(salt: str, tokens: list[int]) -> bytes:
    """What the K/V of the last of `tokens` depends on."""
    return hashlib.md5(repr((salt, tokens)).encode()).digest()


def next_token(digest: bytes) -> int:
    return digest[0] % 2


def is_last(digest: bytes) -> bool:
    return digest[1] % 8 == 0


def answer(salt: str, prompt: list[int], max_tokens: int) -> list[int]:
    """What a request gets when it rides alone and undisturbed."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + max_tokens:
        digest = context(salt, tokens)
        tokens.append(next_token(digest))
        if is_last(digest):
            break
    return tokens[len(prompt) :]


class Device:
    """Memory and words of the data plane: runs plans in the order in which they were made."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.memory: dict[tuple[int, int], bytes] = {}
        self.words: dict[RequestState, list[int]] = {}
        self.sampled: dict[int, dict[str, bytes]] = {}

    def run(self, plan: StepPlan) -> None:
        for source, destination in plan.copies:
            for offset in range(self.block_size):
                self.memory[destination, offset] = self.memory.get((source, offset), b"poison")
        written: Counter[int] = Counter()
        for row in plan.scheduled:
            words = self.words.setdefault(row.request, list(row.request.token_ids or ()))
            assert len(words) >= row.seq_len, "a token was scheduled that nobody has sampled"
            for position in range(row.num_computed_tokens, row.seq_len):
                self.memory[self.place(row.block_table, position)] = context(
                    row.request.salt, words[: position + 1]
                )
            first, last = (at // self.block_size for at in (row.num_computed_tokens, row.seq_len - 1))
            written.update(row.block_table[first : last + 1])
        assert not written or max(written.values()) == 1, "two requests write into one block"
        self.sampled[plan.step] = {row.id: self.read(row) for row in plan.scheduled if row.yields_token}

    def place(self, table: list[int], position: int) -> tuple[int, int]:
        return table[position // self.block_size], position % self.block_size

    def read(self, row) -> bytes:
        """Attention of one row: every position must hold the request's own words."""
        words = self.words[row.request]
        for position in range(row.seq_len):
            heard = self.memory.get(self.place(row.block_table, position))
            assert heard == context(row.request.salt, words[: position + 1]), (
                f"{row.id} overhears at {position}"
            )
        words.append(next_token(heard))
        return heard


class Ride(RuleBasedStateMachine):
    """One scheduler's life. Subclasses say under which policy."""

    policy_class = POLICIES["vllm"]
    failed = False

    @initialize(
        slots=st.integers(1, 4),
        block_size=st.integers(1, 4),
        num_blocks=st.integers(4, 16),
        extra_budget=st.integers(0, 8),
        prefix_caching=st.booleans(),
        max_in_flight=st.integers(1, 2),
        max_model_len=st.sampled_from([None, 8, 16]),
    )
    def start(
        self, slots, block_size, num_blocks, extra_budget, prefix_caching, max_in_flight, max_model_len
    ):
        self.scheduler = Scheduler(
            slots,
            num_blocks,
            block_size,
            slots + extra_budget,
            self.policy_class(),
            max_model_len=max_model_len,
            prefix_caching=prefix_caching,
            max_in_flight=max_in_flight,
        )
        self.pool = self.scheduler.kv_cache.pool
        self.device = Device(block_size)
        self.plans: list[StepPlan] = []
        self.tables: dict[RequestState, list[int]] = {}
        self.stored: dict[RequestState, int] = {}
        self.done, self.lost, self.hit = Counter(), Counter(), Counter()
        self.last_loss: dict[RequestState, int] = {}
        self.everyone: list[RequestState] = []
        self.due: dict[RequestState, list[int]] = {}
        self.seen_aborts = False

    # ----- what may happen -----

    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=10),
        max_tokens=st.integers(1, 8),
        priority=st.integers(0, 2),
        salt=st.sampled_from(["", "ann", "bob"]),
    )
    def add(self, prompt, max_tokens, priority, salt):
        name = f"r{len(self.everyone)}"
        try:
            request = self.scheduler.add_request(name, prompt, max_tokens, priority=priority, salt=salt)
        except RequestRejectedError:
            return
        self.remember(request, prompt)

    def remember(self, request: RequestState, prompt: list[int]) -> None:
        self.everyone.append(request)
        self.due[request] = answer(request.salt, prompt, request.max_tokens)

    @precondition(lambda self: self.scheduler.requests)
    @rule(choice=st.integers(0, 99))
    def abort(self, choice):
        names = list(self.scheduler.requests)
        request = self.scheduler.abort(names[choice % len(names)])
        assert request.status is RequestStatus.ABORTED
        assert not request.block_table
        self.seen_aborts = True

    @precondition(lambda self: self.scheduler.requests)
    @rule(choice=st.integers(0, 99), max_tokens=st.integers(1, 8))
    def fork(self, choice, max_tokens):
        names = list(self.scheduler.requests)
        parent = self.scheduler.requests[names[choice % len(names)]]
        try:
            child = self.scheduler.fork(parent.id, f"r{len(self.everyone)}", max_tokens)
        except RequestRejectedError:
            return
        self.remember(child, parent.token_ids[: parent.prompt_tokens])
        if child.is_running:
            self.hit[child] += child.num_computed_tokens
            self.stored[child] = child.num_computed_tokens

    @rule(steps=st.integers(1, 4))
    def ride(self, steps):
        for _ in range(steps):
            if len(self.plans) == self.scheduler.max_in_flight:
                self.report()
            self.plan()

    @precondition(lambda self: self.plans)
    @rule()
    def report(self):
        plan = self.plans.pop(0)
        sampled = self.device.sampled.pop(plan.step)
        left = {row.request for row in plan.scheduled if row.request.is_done}
        for row in plan.scheduled:
            if row.request in left:
                self.done[row.request] -= row.num_scheduled_tokens
        finished = self.scheduler.update(
            plan,
            {name: next_token(digest) for name, digest in sampled.items()},
            stopped=[name for name, digest in sampled.items() if is_last(digest)],
        )
        for request in finished:
            self.check_finished(request, plan)

    def plan(self) -> StepPlan:
        try:
            return self._plan()
        except AssertionError:
            self.failed = True
            FAILING.mkdir(exist_ok=True)
            self.scheduler.build_trace().save(FAILING / f"failing-{self.scheduler.policy.name}.trace.json")
            raise

    def _plan(self) -> StepPlan:
        decoding = [r for r in self.scheduler.running if not r.is_prefilling and not r.is_exhausted]
        plan = self.scheduler.schedule()
        STEPS_RUN[self.scheduler.policy.name] += 1
        SEEN.update(preempted=len(plan.preempted), resumed=len(plan.resumed), copies=len(plan.copies))
        SEEN.update(hits=sum(r.num_cached_tokens > 0 for r in plan.admitted + plan.resumed))
        self.plans.append(plan)
        self.check_budgets(plan, decoding)
        self.check_nobody_waits_in_vain(plan)
        self.account(plan)
        self.check_tables(plan)
        self.device.run(plan)
        return plan

    # ----- what must hold -----

    def check_budgets(self, plan: StepPlan, decoding: list[RequestState]) -> None:
        scheduler = self.scheduler
        assert plan.num_tokens <= scheduler.token_budget
        assert plan.budget == scheduler.token_budget - plan.num_tokens
        assert len(scheduler.running) <= scheduler.slots
        slots = [request.slot for request in scheduler.running]
        assert len(set(slots)) == len(slots)
        assert {row.num_scheduled_tokens for row in plan.decodes} <= {1}
        assert all(row.num_scheduled_tokens > 0 for row in plan.prefills)
        served = {row.request for row in plan.decodes}
        if not (plan.prefills and scheduler.policy.pauses_decode(scheduler)):
            starved = [r.id for r in decoding if r not in served and r not in plan.preempted]
            assert not starved, f"{starved} could write and may not"

    def check_nobody_waits_in_vain(self, plan: StepPlan) -> None:
        scheduler, policy, cache = self.scheduler, self.scheduler.policy, self.scheduler.kv_cache
        if (
            not policy.work_conserving
            or plan.preempted
            or not scheduler.waiting
            or not scheduler.num_free_slots
        ):
            return
        request = policy.choose(scheduler)
        prefix = cache.cached_prefix(request)
        computed = len(prefix) * cache.block_size
        tokens = policy.chunk(scheduler, request, request.num_tokens - computed, plan.budget)
        if tokens > 0:
            memory = max(policy.reserve(scheduler, request), computed + tokens)
            watermark = policy.watermark(scheduler) if scheduler.running else 0
            assert cache.blocks_short(memory, prefix, watermark) > 0, f"{request.id} waits in vain"

    def account(self, plan: StepPlan) -> None:
        for request in plan.preempted:
            self.last_loss[request] = self.stored.pop(request)
            self.lost[request] += self.last_loss[request]
            self.tables.pop(request, None)
        for request in plan.admitted + plan.resumed:
            self.hit[request] += request.num_cached_tokens
            self.stored[request] = request.num_cached_tokens
            assert request.num_cached_tokens < request.num_tokens
        for row in plan.scheduled:
            assert row.num_computed_tokens == self.stored[row.request]
            self.stored[row.request] = row.seq_len
            self.done[row.request] += row.num_scheduled_tokens

    def check_tables(self, plan: StepPlan) -> None:
        """Tables grow at their end; an entry changes only where a copy goes with it."""
        for row in plan.scheduled:
            assert len(row.block_table) * self.device.block_size >= row.seq_len
            before = self.tables.get(row.request, [])
            for old, new in zip(before, row.block_table, strict=False):
                assert old == new or (old, new) in plan.copies
            assert len(row.block_table) >= len(before)
            self.tables[row.request] = list(row.block_table)

    def check_finished(self, request: RequestState, plan: StepPlan) -> None:
        due = self.due[request]
        assert request.token_ids[request.prompt_tokens :] == due, "disturbed words"
        extra = sum(  # a step in flight computes one token more for a request that turns out to have stopped
            row.num_scheduled_tokens
            for later in self.plans
            for row in later.scheduled
            if row.request is request
        )
        work_due = request.prompt_tokens + len(due) - 1
        lost = self.lost[request]
        if any(request in later.preempted for later in self.plans):
            lost -= self.last_loss[
                request
            ]  # thrown out before its last word was known: nothing to compute again
        counts = {"done": self.done[request], "extra": extra, "due": work_due, "lost": lost}
        assert self.done[request] - extra == work_due + lost - self.hit[request], counts

    @invariant()
    def blocks_add_up(self):
        held = Counter(b for request in self.scheduler.requests.values() for b in request.block_table)
        assert NULL_BLOCK not in held
        assert [held[block] for block in range(self.pool.num_blocks)] == self.pool.ref_counts
        free = self.pool.free_blocks()
        assert len(set(free)) == len(free)
        assert set(free) == set(range(1, self.pool.num_blocks)) - set(held)
        tables = (request.block_table for request in self.scheduler.requests.values())
        assert all(len(set(table)) == len(table) for table in tables)

    @invariant()
    def counts_add_up(self):
        scheduler = self.scheduler
        assert len(scheduler.waiting) + len(scheduler.running) == len(scheduler.requests)
        assert len(scheduler.running) + scheduler.num_free_slots == scheduler.slots
        assert all(request.is_running for request in scheduler.running)

    def teardown(self):
        if hasattr(self, "scheduler") and not self.failed:
            self.drain()

    def drain(self):
        """Everyone gets home, and leaves nothing behind."""
        patience = 100 + 20 * sum(r.prompt_tokens + r.max_tokens for r in self.scheduler.requests.values())
        while self.scheduler.has_unfinished:
            self.ride(1)
            self.report()
            patience -= 1
            assert patience, f"{list(self.scheduler.requests)} never finish"
        while self.plans:
            self.report()
        self.blocks_add_up()
        self.counts_add_up()
        assert self.pool.num_free == self.pool.capacity
        trace = self.scheduler.build_trace()
        numbers = metrics(trace)
        finished = [r for r in self.everyone if r.status is RequestStatus.FINISHED]
        assert numbers["finished"] == len(finished)
        if not self.seen_aborts:
            assert numbers["tokens"] == sum(len(self.due[r]) for r in finished)
            assert numbers["cached_tokens"] == sum(self.hit.values())


def machine(policy_class, phases=tuple(Phase)) -> type:
    case = type(f"Ride{policy_class.__name__}", (Ride,), {"policy_class": policy_class}).TestCase
    case.settings = settings(
        max_examples=EXAMPLES,
        stateful_step_count=RULES,
        deadline=None,
        phases=phases,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    return case


for _policy in POLICIES.values():
    globals()[f"Test{_policy.__name__}"] = machine(_policy)
del _policy


class Patient(POLICIES["vllm"]):
    """A policy that forgets to board: the machine must notice."""

    name = "patient"

    def may_admit(self, scheduler):
        return len(scheduler.waiting) > 1 or not scheduler.running


def test_the_machine_notices_a_lazy_policy():
    with pytest.raises(AssertionError, match="waits in vain"):
        machine(Patient, [Phase.generate])("runTest").debug()


def test_the_machine_notices_a_block_that_is_handed_out_too_early(monkeypatch):
    """The overheard neighbor: a pool that frees a block while a table still points at it."""
    from lessonlib.scheduling.block_pool import BlockPool

    honest = BlockPool.allocate

    def careless(self, count):
        blocks = honest(self, count)
        for block in blocks[1:]:
            self.ref_counts[block] = 0
            self._free[block] = None
        return blocks

    monkeypatch.setattr(BlockPool, "allocate", careless)
    monkeypatch.setattr(Ride, "blocks_add_up", lambda self: None)
    with pytest.raises((AssertionError, CourseError)):
        machine(POLICIES["vllm"], [Phase.generate])("runTest").debug()


def test_enough_steps_were_run():
    """Runs last in this file: ten thousand steps, or the rides above were too short to mean anything."""
    for policy in POLICIES.values():
        if policy.name not in STEPS_RUN:  # this test alone, or its neighbors in another process
            machine(policy)("runTest").debug()
    assert sum(STEPS_RUN.values()) >= 10_000, STEPS_RUN
    assert min(SEEN[kind] for kind in ("preempted", "resumed", "copies", "hits")) >= 30, SEEN
