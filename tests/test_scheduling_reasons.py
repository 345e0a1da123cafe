"""Why no request was admitted: the reasons in plans and Traces, counted again from the scheduler's state."""

from collections import Counter

import numpy as np
import pytest

from lessonlib.metrics import held_shares, metrics
from lessonlib.scheduling.block_pool import BlockPool
from lessonlib.scheduling.kv_cache import KVCache
from lessonlib.scheduling.plugged import plug
from lessonlib.scheduling.policies import ABLATIONS, POLICIES, TGI, VLLM, StaticBatching, make_policy
from lessonlib.scheduling.policy import Policy
from lessonlib.scheduling.request import RequestRejectedError
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.simulation import simulate
from lessonlib.simulation.slots import SlotScheduler, ride
from lessonlib.trace import Header, HeldBy, Trace, TraceBuilder
from lessonlib.workload import Workload, draw_lengths

RIDES = 100  # of each policy in `make test`; 10,000 in `make prove`


def gate_of(policy, running, waiting, still_to_come, slots, steps_since_prefill):
    """What a policy waits for by its published rule, written here once more; None where it waits for nothing."""
    if isinstance(policy, StaticBatching):
        if running:
            return HeldBy.BATCH
        return HeldBy.MORE_REQUESTS if policy.fill and waiting < min(slots, waiting + still_to_come) else None
    if isinstance(policy, TGI):
        enough = waiting >= int(policy.waiting_served_ratio * running)
        return None if enough or steps_since_prefill >= policy.max_waiting_tokens else HeldBy.MORE_REQUESTS
    return None


class Recounting(Scheduler):
    """Counts the reason of each attempt to admit once more, from what the attempt left."""

    recounted = None

    def _admit_waiting(self, plan):
        before = (
            len(self.running),
            len(self.waiting),
            self.still_to_come,
            self.slots,
            self.steps_since_prefill,
        )
        super()._admit_waiting(plan)
        self.recounted = self.recount(plan, before)

    def recount(self, plan, before):
        """(reason, blocks short) of the first in the queue."""
        queue = self.waiting.in_order()
        if not queue:
            return HeldBy.NOTHING, 0
        if len(self.running) == self.slots:
            return HeldBy.SLOTS, 0
        if gate := gate_of(self.policy, *before):
            return gate, 0
        first, cache = self.policy.choose(self), self.kv_cache
        prefix = cache.cached_prefix(first)
        done = first.num_tokens - 1 if self.free_prefill else len(prefix) * cache.block_size
        new = first.num_tokens - done
        chunk = min(self.policy.chunk(self, first, new, plan.budget), new, plan.budget)
        if chunk <= 0 and not isinstance(self.policy, StaticBatching):
            return HeldBy.BUDGET, 0
        tokens = max(self.policy.reserve(self, first), done + max(0, chunk))
        held = sum(cache.pool.ref_counts[block] > 0 for block in prefix)
        spare = self.policy.watermark(self) if self.running else 0
        free = sum(count == 0 for count in cache.pool.ref_counts[1:])
        return HeldBy.BLOCKS, -(-tokens // cache.block_size) - held + spare - free

    def planned(self):
        """The next plan, its reason checked."""
        self.recounted = None
        plan = self.schedule()
        expected = self.recounted if self.recounted and self.recounted[0] else (HeldBy.NOTHING, 0)
        if plan.preempted and not expected[0]:
            expected = HeldBy.PREEMPTION, 0
        assert (plan.held_by, plan.blocks_short) == expected, f"step {plan.step} of {self.policy.name}"
        assert (plan.held_by is HeldBy.NOTHING) == (not self.waiting)
        assert (plan.held_by is HeldBy.BLOCKS) == (plan.blocks_short > 0)
        return plan


def random_ride(policy, rng):
    """A small ride: few slots and blocks, prompts that begin alike, arrivals in between. Returns its plans' reasons."""
    slots, size = int(rng.integers(1, 6)), int(rng.integers(1, 5))
    pool = BlockPool(int(rng.integers(5, 22)), size, 0) if rng.random() < 0.9 else None
    scheduler = Recounting(
        slots,
        token_budget=None if rng.random() < 0.2 else slots + int(rng.integers(0, 14)),
        policy=policy,
        max_model_len=int(rng.integers(12, 30)),
        free_prefill=rng.random() < 0.1,
        kv_cache=KVCache(pool, prefix_caching=rng.random() < 0.5) if pool else None,
    )
    count = int(rng.integers(1, 11))
    arrivals = np.sort(rng.integers(0, 12, count)) if rng.random() < 0.7 else np.zeros(count, int)
    reasons, arrived = [], 0
    while arrived < count or scheduler.has_unfinished:
        while arrived < count and arrivals[arrived] <= scheduler.next_step:
            prompt = rng.integers(0, 2, int(rng.integers(1, 10))).tolist()
            arrived, limit = arrived + 1, int(rng.integers(1, 12))
            scheduler.still_to_come = count - arrived
            try:
                scheduler.add_request(str(arrived), prompt, limit, priority=int(rng.integers(0, 3)))
            except RequestRejectedError:
                continue
        plan = scheduler.planned()
        ids = plan.sampled_ids
        scheduler.update(plan, dict.fromkeys(ids, 1), [name for name in ids if rng.random() < 0.05])
        reasons.append((int(plan.held_by), plan.blocks_short))
        assert len(reasons) < 5_000
    trace = scheduler.build_trace()
    assert list(zip(trace.steps["held_by"], trace.steps["blocks_short"], strict=True)) == reasons
    return [reason for reason, _ in reasons]


def policies():
    """Every policy at its defaults, and those forms of them that wait or admit otherwise."""
    for name in POLICIES | ABLATIONS:
        yield pytest.param(lambda name=name: make_policy(name), id=name)
    for policy, options in (
        (StaticBatching, {"fill": True}),
        (VLLM, {"watermark": 0.2}),
        (TGI, {"waiting_served_ratio": 1.2}),
    ):
        yield pytest.param(
            lambda policy=policy, options=options: policy(**options),
            id=f"{policy.name}-{next(iter(options))}",
        )


@pytest.mark.parametrize("make", [*policies()])
def test_reasons_agree_with_a_recount(make):
    rng, seen = np.random.default_rng(26), Counter()
    for _ in range(RIDES):
        seen.update(random_ride(make(), rng))
    assert seen[HeldBy.SLOTS]
    assert not seen[HeldBy.UNKNOWN]
    assert not seen[HeldBy.POLICY]
    if make().name in ("vllm", "continuous"):
        assert {HeldBy.BUDGET, HeldBy.BLOCKS, HeldBy.PREEMPTION} <= set(seen)
    if make().name == "static":
        assert seen[HeldBy.BATCH]


honest_held_by, honest_close = Scheduler._held_by, Scheduler._close


def blocks_called_budget(self, *given):
    held_by = honest_held_by(self, *given)
    return HeldBy.BUDGET if held_by is HeldBy.BLOCKS else held_by


def a_block_too_few(self, plan, *given):
    held_by = honest_held_by(self, plan, *given)
    plan.blocks_short -= held_by is HeldBy.BLOCKS and plan.blocks_short > 1
    return held_by


def preemption_untold(self, plan):
    held_by, plan = plan.held_by, honest_close(self, plan)
    plan.held_by = held_by
    return plan


@pytest.mark.parametrize(
    ("policy", "mistake"),
    [
        ("vllm", (Scheduler, "_held_by", blocks_called_budget)),
        ("vllm", (Scheduler, "_held_by", a_block_too_few)),
        ("vllm", (Scheduler, "_close", preemption_untold)),
        ("static", (StaticBatching, "waits_for", lambda self, scheduler: HeldBy.MORE_REQUESTS)),
        ("tgi", (TGI, "waits_for", lambda self, scheduler: HeldBy.BATCH)),
    ],
    ids=lambda given: given if isinstance(given, str) else given[1],
)
def test_the_recount_notices_a_wrong_reason(policy, mistake, monkeypatch):
    monkeypatch.setattr(*mistake)
    options = {"waiting_served_ratio": 1.2} if policy == "tgi" else {}  # with few slots, 0.3 of them is none
    rng = np.random.default_rng(7)

    def rides():
        for _ in range(300):
            random_ride(make_policy(policy, **options), rng)

    with pytest.raises(AssertionError, match="step "):
        rides()


@pytest.mark.prove
@pytest.mark.parametrize("make", [*policies()])
def test_ten_thousand_rides_of_every_policy(make):
    rng = np.random.default_rng(2026)
    for _ in range(10_000):
        random_ride(make(), rng)


@pytest.mark.parametrize(
    ("policy", "fill", "reasons"),
    [
        ("continuous", False, {"slots"}),
        ("static", False, {"slots", "batch"}),
        ("static", True, {"slots", "batch", "more_requests"}),
    ],
)
def test_the_slot_scheduler_gives_the_schedulers_reasons(policy, fill, reasons):
    rng, seen = np.random.default_rng(0), set()
    for _ in range(60):
        count = int(rng.integers(1, 20))
        arrivals = np.sort(rng.integers(0, 30, count))
        workload = Workload.from_lengths(rng.integers(1, 9, count), arrival_time=arrivals)
        slots = int(rng.integers(1, 6))
        by_event, by_step = (
            ride(workload, slots, policy, fill),
            SlotScheduler(workload, slots, policy, fill).run(),
        )
        chosen = StaticBatching(fill) if policy == "static" else policy
        whole = simulate(workload, chosen, slots, free_prefill=True)
        for trace in (by_event, by_step):
            assert trace.steps["held_by"].tolist() == whole.steps["held_by"].tolist()
            assert not trace.steps["blocks_short"].any()
        seen |= held_shares(by_event).keys()
    assert seen == reasons


def test_a_policy_of_ones_own_waits_for_something_else():
    class Even(Policy):
        def may_admit(self, scheduler):
            return len(scheduler.waiting) % 2 == 0

    scheduler = Scheduler(4, policy=Even())
    for name in "abc":
        scheduler.add_request(name, 1, 1)
    assert scheduler.schedule().held_by is HeldBy.POLICY


def test_a_students_admit_is_named_where_the_course_would_admit():
    class Student:
        @staticmethod
        def admit(waiting, sizes, running, slots, free, blocks, block_size, watermark, budget):
            return [], waiting, free  # never

    scheduler = plug(Student).scheduler_cls(1, 9, 4, token_budget=8)
    scheduler.add_request("a", 30, 1)
    assert scheduler.schedule().held_by is HeldBy.POLICY
    scheduler = plug(Student).scheduler_cls(1, 4, 4)
    scheduler.add_request("a", 9, 1)
    scheduler.kv_cache.pool.allocate(2)
    plan = scheduler.schedule()
    assert (plan.held_by, plan.blocks_short) == (HeldBy.BLOCKS, 2)


def test_the_shares_of_the_steps_with_a_queue():
    trace = simulate(Workload.from_lengths([9, 9, 9, 1], [8, 8, 8, 8]), "vllm", 3, 8, 4, token_budget=12)
    shares = metrics(trace)["held_by"]
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-5)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert metrics(trace)["steps_with_queue"] == (trace.steps["waiting"] > 0).sum()
    assert metrics(trace)["most_blocks_short"] == trace.steps["blocks_short"].max() > 0
    assert held_shares(simulate(Workload.from_lengths([3]), "vllm", 1)) == {}


def test_a_trace_of_schema_1_loads_and_knows_no_reasons(tmp_path):
    trace = ride(Workload.from_lengths(draw_lengths("uniform:1:9", 20)), 3)
    old = trace.to_dict()
    old["header"]["schema"] = 1
    del old["steps"]["held_by"], old["steps"]["blocks_short"]
    loaded = Trace.from_dict(old)
    assert loaded.same_ride(trace)
    assert held_shares(loaded) == {"unknown": 1.0}
    assert (loaded.steps["held_by"][loaded.steps["waiting"] == 0] == HeldBy.NOTHING).all()
    again = Trace.load(loaded.save(tmp_path / "old.json"))
    assert again.steps["held_by"].tolist() == loaded.steps["held_by"].tolist()


def test_what_makes_a_trace_need_not_know():
    builder = TraceBuilder(Header(1), [1], [0.0])
    builder.end_step(waiting=1, running=0)
    builder.end_step(waiting=0, running=1)
    assert builder.build().steps["held_by"].tolist() == [HeldBy.UNKNOWN, HeldBy.NOTHING]
