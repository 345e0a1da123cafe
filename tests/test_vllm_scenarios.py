"""vLLM's own scheduler and K/V-cache tests as scenarios for this scheduler, each under its vLLM test's name.

The sources are tests/v1/core of vllm-project/vllm (Apache-2.0). What is taken from there is the situation and what
is expected of it; the code is this course's. Left out are tests of what the course has not: images, adapters,
speculative decoding, hybrid models, connectors, statistics and events. A scenario that differs by design names the
entry of docs/vllm.md that says why, and holds what happens here.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from engine_models import write_config

from lessonlib.engine import LLM, SamplingParams
from lessonlib.errors import CourseError
from lessonlib.scheduling.block_pool import BlockPool, block_hash, root_hash
from lessonlib.scheduling.kv_cache import KVCache
from lessonlib.scheduling.policies import make_policy
from lessonlib.scheduling.policy import Policy
from lessonlib.scheduling.request import RequestState
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.trace import Kind

PAGE = Path(__file__).parents[1] / "docs" / "vllm.md"
SCHEDULER, ASYNC = "test_scheduler.py", "test_async_scheduler.py"
PREFIXES, UTILS = "test_prefix_caching.py", "test_kv_cache_utils.py"

NEXT_STEP = "Prefixes in one step."
TIES = "Requests of equal priority"
RESET = "Forgetting cached prefixes"
SEEDS = "Hashes of blocks"
SCORES = "Scores of a prompt"
TEXT_ALONE = "Images and adapters"

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Scenario:
    """`run` raises AssertionError where the scheduler does otherwise; `differs`: an entry of docs/vllm.md."""

    file: str
    run: Callable[..., None]
    differs: str


SCENARIOS: dict[str, Scenario] = {}


def scenario(file, differs=""):
    """The function is a scenario; its name is the vLLM test's without "test_"."""

    def register(function):
        name = f"test_{function.__name__}"
        assert name not in SCENARIOS
        SCENARIOS[name] = Scenario(file, function, differs)
        return function

    return register


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """LLM(**options) of a small model with random weights."""
    sizes = {"skip_tokenizer_init": True, "num_blocks": 40, "block_size": 4}
    folder = write_config(tmp_path_factory.mktemp("tiny"))
    model = LLM(folder, device="cpu", load_format="dummy", **sizes).model
    return lambda **options: LLM(model, **{**sizes, **options})


# ----- what scenarios are made of -----


def scheduler(slots=16, budget=8192, blocks=10_000, block_size=16, policy=None, **options):
    return Scheduler(slots, blocks, block_size, budget, policy, **options)


def by_priority(slots=16, budget=8192, blocks=10_000):
    return scheduler(slots, budget, blocks, policy=make_policy("sla"))


def add(planner, count=10, length=10, max_tokens=16, first=0, priorities=None):
    """Requests named "0", "1", …; each prompt is its number, `length` times."""
    return [
        planner.add_request(
            str(number),
            [number] * length,
            max_tokens,
            priority=0 if priorities is None else priorities[number - first],
        )
        for number in range(first, first + count)
    ]


def report(planner, plan, stopped=(), token=0):
    return planner.update(plan, dict.fromkeys(plan.sampled_ids, token), stopped)


def step(planner, stopped=()):
    plan = planner.schedule()
    report(planner, plan, stopped)
    return plan


def ride(planner, plans=(), before=lambda: None):
    """Step with two plans in flight until everyone is done; the number of tokens computed."""
    plans, computed = deque(plans), 0
    while planner.has_unfinished or plans:
        while planner.has_unfinished and len(plans) < planner.max_in_flight:
            plans.append(planner.schedule())
        before()
        plan = plans.popleft()
        computed += plan.num_tokens
        report(planner, plan)
    return computed


def shares(plan):
    return {row.id: row.num_scheduled_tokens for row in plan.scheduled}


def ids(requests):
    return [request.id for request in requests]


COMMON = [block for block in range(3) for _ in range(16)]


def memory(blocks=11, block_size=16, prefix_caching=True):
    return KVCache(BlockPool(blocks, block_size, seed=0), prefix_caching)


def request(tokens, salt="", name="it"):
    return RequestState(name, len(tokens), 17, token_ids=list(tokens), salt=salt)


def compute(cache, tokens, salt=""):
    """A request that is admitted and computed whole; and the blocks that were found for it."""
    found = request(tokens, salt)
    prefix = cache.cached_prefix(found)
    cache.allocate(found, len(tokens), prefix)
    found.num_computed_tokens = len(tokens)
    cache.commit(found, len(tokens))
    return found, prefix


def go_on(cache, it, tokens):
    """The request computes further tokens; the number of new blocks."""
    before = len(it.block_table)
    it.token_ids += tokens
    it.num_output_tokens += len(tokens)
    cache.append(it, it.num_tokens)
    it.num_computed_tokens = it.num_tokens
    cache.commit(it, it.num_tokens)
    return len(it.block_table) - before


def cached(llm, tokens, **params):
    """`num_cached_tokens` of an answer to the prompt."""
    asked = SamplingParams(max_tokens=2, temperature=0, **params)
    return llm.generate([list(tokens)], asked, use_tqdm=False)[0].num_cached_tokens


# ----- requests come and go -----


@scenario(SCHEDULER)
def add_requests():
    planner = scheduler()
    for number in range(10):
        (found,) = add(planner, 1, first=number)
        assert planner.requests[str(number)] is found
        assert len(planner.waiting) == number + 1


@scenario(SCHEDULER)
def finish_request():
    planner = scheduler()
    for left, each in zip(range(9, -1, -1), add(planner), strict=True):
        planner.abort(each.id)
        assert each.id not in planner.requests
        assert len(planner.waiting) == left


@scenario(SCHEDULER)
def get_num_unfinished_requests():
    planner = scheduler()
    for left, each in zip(range(9, -1, -1), add(planner), strict=True):
        planner.abort(each.id)
        assert len(planner.requests) == left
    assert not planner.has_unfinished


@scenario(SCHEDULER)
def schedule():
    for prefix_caching in (False, True):
        planner = scheduler(prefix_caching=prefix_caching)
        requests = add(planner)
        plan = planner.schedule()
        assert plan.admitted == requests == planner.running
        assert not plan.resumed
        assert shares(plan) == dict.fromkeys(ids(requests), 10)
        assert not len(planner.waiting)


@scenario(SCHEDULER)
def schedule_skip_tokenizer_init():
    planner = scheduler()
    for number in range(5):
        planner.add_request(str(number), 10, 16)  # the scheduler needs lengths alone
    assert len(planner.schedule().admitted) == 5


@scenario(SCHEDULER)
def stop_via_update_from_output():
    planner = scheduler()
    first, second = add(planner, 2, max_tokens=10)
    plan = planner.schedule()
    assert planner.update(plan, {"0": 2, "1": 10}, stopped=["0"]) == [first]
    assert planner.running == [second]
    assert (first.token_ids[10:], second.token_ids[10:]) == ([2], [10])
    assert not first.is_running
    plan = planner.schedule()
    assert planner.update(plan, {"1": 42}, stopped=["1"]) == [second]
    assert second.token_ids[10:] == [10, 42]

    planner = scheduler()
    first, second = add(planner, 1, max_tokens=2) + add(planner, 1, max_tokens=3, first=1)
    step(planner)
    assert report(planner, planner.schedule()) == [first]
    assert (first.num_output_tokens, second.num_output_tokens) == (2, 2)

    planner = scheduler()
    (goes_on,) = add(planner, 1, max_tokens=10)
    for _ in range(3):
        report(planner, planner.schedule(), token=2)  # an end token, of which nobody says that it stops
    assert planner.running == [goes_on]
    assert goes_on.token_ids[10:] == [2, 2, 2]


@scenario(SCHEDULER)
def check_stop_min_tokens(make):
    llm = make()

    def answer(token, **params):
        asked = SamplingParams(max_tokens=20, temperature=0, logit_bias={token: 1000.0}, **params)
        return llm.generate([[5, 6, 7]], asked, use_tqdm=False)[0].outputs[0]

    for token, stops, reason in ((2, {}, None), (42, {"stop_token_ids": [42]}, 42)):
        for min_tokens, length in ((5, 6), (0, 1)):
            found = answer(token, min_tokens=min_tokens, **stops)
            assert (found.token_ids[-1], len(found.token_ids)) == (token, length)
            assert (found.finish_reason, found.stop_reason) == ("stop", reason)


@scenario(SCHEDULER)
def memory_leak():
    planner = scheduler(prefix_caching=True)
    for number in range(5):
        add(planner, 1, max_tokens=10, first=number)
        step(planner)
    ride(planner)
    pool = planner.kv_cache.pool
    assert not planner.requests
    assert not planner.running
    assert not len(planner.waiting)
    assert (pool.num_free, planner.num_free_slots) == (pool.capacity, 16)
    assert not any(pool.ref_counts)


# ----- budgets, chunks, order -----


@scenario(SCHEDULER)
def schedule_concurrent_partial_requests():
    class Threshold(Policy):
        def chunk(self, scheduler, request, num_new, budget):
            return min(num_new, budget, 400)

    for prefix_caching in (True, False):
        planner = scheduler(budget=1024, policy=Threshold(), prefix_caching=prefix_caching)
        add(planner, 3, length=800)
        expected = [(400, 400, 224), (400, 400, 224), (1, 1, 800 - 2 * 224)]
        for numbers in expected:
            assert shares(step(planner)) == dict(zip("012", numbers, strict=True))
            assert len(planner.running) == 3


@scenario(SCHEDULER)
def schedule_order():
    for policy, admitted in (("continuous", 2), ("max-utilization", 1)):  # prompts in chunks, and whole
        planner = scheduler(slots=3, budget=1024, policy=make_policy(policy))
        add(planner, 2, length=800)
        add(planner, 2, length=10, first=2)
        assert len(planner.schedule().admitted) == admitted


@scenario(SCHEDULER)
def schedule_prefills_gating():
    class Gate(Policy):
        closed = False

        def may_admit(self, scheduler):
            return not (self.closed and scheduler.running)

    for has_running in (True, False):
        planner = scheduler(policy=Gate())
        if has_running:
            planner.add_request("runs", 8, 16)
            step(planner)
        planner.policy.closed = True
        planner.add_request("comes", 8, 16)
        assert list(shares(step(planner))) == (["runs"] if has_running else ["comes"])
        planner.policy.closed = False
        assert "comes" in shares(step(planner))


@scenario(SCHEDULER)
def throttle_defers_inflight_prefill_chunk():
    class Throttle(Policy):
        closed = False

        def chunk(self, scheduler, request, num_new, budget):
            return 0 if self.closed else min(num_new, budget)

    planner = scheduler(budget=50, policy=Throttle())
    planner.add_request("decodes", 4, 16)
    step(planner)
    planner.add_request("reads", 80, 16)
    assert shares(step(planner)) == {"decodes": 1, "reads": 49}
    planner.policy.closed = True
    assert shares(step(planner)) == {"decodes": 1}
    planner.policy.closed = False
    assert shares(step(planner)) == {"decodes": 1, "reads": 31}


# ----- steps in flight -----


@scenario(SCHEDULER)
def schedule_concurrent_batches():
    for prefix_caching in (False, True):
        planner = scheduler(slots=2, budget=1024, prefix_caching=prefix_caching, max_in_flight=2)
        add(planner, 1, length=512)
        first = planner.schedule()
        add(planner, 1, length=512, first=1)
        second = planner.schedule()
        assert shares(first) == {"0": 512}
        assert shares(second)["1"] == 512
        report(planner, first)
        assert shares(planner.schedule())["0"] == 1
        report(planner, second)


@scenario(SCHEDULER)
def preempt_during_execution():
    planner = scheduler(budget=100, blocks=12, max_in_flight=2)
    (first,) = add(planner, 1, length=80)
    plan_of_first = planner.schedule()
    (second,) = add(planner, 1, length=80, first=1)
    # Here the first one decodes in this step already, for which it takes a sixth block; one block more than in vLLM.
    plan_of_both = planner.schedule()
    assert (len(first.block_table), len(second.block_table), planner.kv_cache.num_free) == (6, 5, 0)
    report(planner, plan_of_first)
    assert planner.schedule().preempted == [second]
    assert planner.running == [first]
    report(planner, plan_of_both, token=42)
    assert second.token_ids[80:] == [42]


@scenario(ASYNC)
def stop_by_max_tokens():
    for max_tokens in (1, 2, 3, 5):
        planner = scheduler(max_in_flight=2)
        plans, requests = [], []
        for number in range(2):
            requests += add(planner, 1, max_tokens=max_tokens, first=number)
            plans.append(planner.schedule())
        assert ride(planner, plans) == 2 * (10 + max_tokens - 1)
        assert [each.num_output_tokens for each in requests] == [max_tokens] * 2


def abort_one_after_the_other():
    order = [0, 8, 3, 1, 6, 4, 2, 5, 7, 9]
    planner = scheduler(max_in_flight=2)
    requests, left = add(planner, max_tokens=20), deque(order)
    plans = [planner.schedule(), planner.schedule()]
    ride(planner, plans, before=lambda: left and planner.abort(str(left.popleft())))
    assert [each.num_output_tokens for each in requests] == [order.index(number) for number in range(10)]
    assert not any(each.is_running or each.block_table for each in requests)
    return planner


@scenario(ASYNC)
def abort():
    planner = abort_one_after_the_other()
    assert sorted(planner.build_trace().rows(Kind.ABORT)["request"]) == list(range(10))


@scenario(ASYNC)
def preempt():
    """vLLM's test of this name aborts; what it leaves behind is looked at here."""
    planner = abort_one_after_the_other()
    assert planner.num_free_slots == 16
    assert planner.kv_cache.num_free == planner.kv_cache.capacity


@scenario(ASYNC, NEXT_STEP)
def prefix_caching_for_prefill_dedup():
    planner = scheduler(budget=1000, prefix_caching=True)
    for name in ("first", "second"):
        planner.add_request(name, [7] * 100, 3)
    assert shares(step(planner)) == {"first": 100, "second": 100}  # vLLM: 100 and 4
    for name in ("third", "fourth", "fifth"):
        planner.add_request(name, [7] * 100, 3)
        assert shares(step(planner))[name] == 100 % 16


@scenario(ASYNC)
def prefix_caching_for_multi_turn():
    planner = scheduler(budget=1000, prefix_caching=True, max_in_flight=2)
    requests = add(planner, 5, length=100, max_tokens=200)
    ride(planner)
    for each in requests:
        planner.add_request(f"{each.id} again", each.token_ids, 200)
    assert shares(planner.schedule()) == {f"{number} again": 300 % 16 for number in range(5)}


# ----- preemption and the Trace of cached tokens -----


def boardings(planner, request):
    """Tokens found in the cache, each time the request boarded."""
    rows = planner.build_trace().rows(Kind.BOARD)
    return rows["tokens"][rows["request"] == request.order].tolist()


def two_in_memory_for_one_and_a_half():
    planner = scheduler(blocks=7, block_size=2, prefix_caching=True)
    return planner, add(planner, 2, length=5, max_tokens=4)


@scenario(SCHEDULER)
def kv_connector_handles_preemption():
    """Without a connector: what the local cache has is found again, the rest is computed again."""
    planner, (first, second) = two_in_memory_for_one_and_a_half()
    assert shares(step(planner)) == {"0": 5, "1": 5}
    assert shares(step(planner)) == {"0": 1, "1": 1}
    for _ in range(2):
        assert shares(step(planner)) == {"0": 1}
        assert ids(planner.waiting.in_order()) == ["1"]
    assert not first.block_table
    assert not planner.running
    assert planner.kv_cache.num_free == 6
    assert shares(step(planner)) == {"1": 3}  # of seven tokens four were kept
    assert shares(step(planner)) == {"1": 1}
    assert (first.num_output_tokens, second.num_output_tokens) == (4, 4)
    assert planner.kv_cache.num_free == 6


@scenario(SCHEDULER)
def kv_connector_unable_to_allocate():
    """Without a connector."""
    planner = scheduler(blocks=10, block_size=4, prefix_caching=True)
    add(planner, 2, length=24, max_tokens=2)
    for name, waiting in (("0", 1), ("1", 0)):
        assert shares(step(planner)) == {name: 24}
        assert (len(planner.running), len(planner.waiting)) == (1, waiting)
        step(planner)
        assert (len(planner.running), len(planner.waiting)) == (0, waiting)
        assert planner.kv_cache.num_free == 9


@scenario(SCHEDULER)
def preemption_re_records_prefix_cache_query():
    planner, (first, second) = two_in_memory_for_one_and_a_half()
    ride(planner)
    assert (boardings(planner, first), boardings(planner, second)) == ([0], [0, 4])
    assert second.num_preemptions == 1


@scenario(SCHEDULER)
def prefix_cache_stats_not_recorded_when_caching_disabled():
    planner = scheduler()
    requests = add(planner, 2)
    step(planner)
    assert [boardings(planner, each) for each in requests] == [[0], [0]]


@scenario(SCHEDULER)
def prefix_cache_stats_counted_once_for_retried_then_scheduled_request():
    planner = scheduler(blocks=7, prefix_caching=True)
    planner.add_request("seed", [7] * 32, 2)
    ride(planner)
    planner.add_request("in the way", [9] * 60, 30)
    step(planner)
    retried = planner.add_request("retried", [7] * 48, 1)
    step(planner)
    assert boardings(planner, retried) == []
    planner.abort("in the way")
    assert shares(step(planner)) == {"retried": 16}
    assert boardings(planner, retried) == [32]


@scenario(SCHEDULER, RESET)
def scheduler_reset_prefix_cache(make):
    llm = make(enable_prefix_caching=True)
    for number in range(4):
        llm.add_request(str(number), [number + 5] * 10, SamplingParams(max_tokens=3, ignore_eos=True))
    llm.step()
    with pytest.raises(CourseError, match="requests are running"):  # vLLM: False
        llm.reset_prefix_cache()
    while llm.has_unfinished_requests():
        last = llm.step()
    assert [len(each.outputs[0].token_ids) for each in last] == [3] * 4
    llm.reset_prefix_cache()


# ----- priorities -----


@scenario(SCHEDULER)
def priority_scheduling_basic_ordering():
    planner = by_priority()
    add(planner, 3, priorities=[2, 0, 1])
    assert ids(planner.schedule().admitted) == ["1", "2", "0"]


def added_against_their_times(priorities, times, slots=16):
    planner = by_priority(slots)
    for number, (priority, time) in enumerate(zip(priorities, times, strict=True)):
        planner.add_request(str(number), 10, 16, priority=priority, arrival_time=time)
    return ids(planner.schedule().admitted + planner.waiting.in_order())


@scenario(SCHEDULER, TIES)
def priority_scheduling_arrival_time_tiebreaker():
    assert added_against_their_times([1, 1, 1], [3.0, 1.0, 2.0]) == ["0", "1", "2"]  # vLLM: 1, 2, 0


@scenario(SCHEDULER, TIES)
def priority_scheduling_mixed_priority_and_arrival():
    assert added_against_their_times([2, 1, 1, 0], [1.0, 3.0, 2.0, 4.0]) == ["3", "1", "2", "0"]  # 3, 2, 1, 0


@scenario(SCHEDULER, TIES)
def priority_scheduling_equal_priority_preemption():
    assert added_against_their_times([2, 2, 2], [3.0, 1.0, 2.0], slots=1) == ["0", "1", "2"]  # 1, 2, 0


@scenario(SCHEDULER, TIES)
def priority_scheduling_fcfs_fallback():
    assert added_against_their_times([1] * 4, [4.0, 1.0, 3.0, 2.0]) == ["0", "1", "2", "3"]  # 1, 3, 2, 0


@scenario(SCHEDULER)
def priority_scheduling_preemption():
    planner = by_priority(slots=3, budget=200, blocks=6)
    (low,) = add(planner, 1, length=32, priorities=[5])
    step(planner)
    (high,) = add(planner, 1, length=32, first=1, priorities=[0])
    plan = step(planner)
    assert (plan.admitted, plan.preempted) == ([high], [])
    assert (len(low.block_table), len(high.block_table), planner.kv_cache.num_free) == (3, 2, 0)
    assert planner.schedule().preempted == [low]
    assert planner.running == [high]


@scenario(SCHEDULER)
def priority_scheduling_no_preemption_when_space_available():
    planner = by_priority(slots=3, budget=200)
    add(planner, 2, length=30, priorities=[5, 5])
    step(planner)
    add(planner, 1, length=30, first=2, priorities=[0])
    plan = planner.schedule()
    assert (ids(plan.admitted), plan.preempted, len(planner.running)) == (["2"], [], 3)


def one_at_a_time(priorities, slots=1):
    planner = by_priority(slots, budget=1000)
    add(planner, len(priorities), priorities=priorities)
    admitted = ids(planner.schedule().admitted)
    return admitted, ids(planner.waiting.in_order())


@scenario(SCHEDULER)
def priority_scheduling_preemption_victim_selection():
    assert one_at_a_time([3, 2, 0]) == (["2"], ["1", "0"])


@scenario(SCHEDULER)
def priority_scheduling_waiting_queue_order():
    assert one_at_a_time([3, 1, 2, 0]) == (["3"], ["1", "2", "0"])


@scenario(SCHEDULER)
def priority_scheduling_with_limited_slots():
    assert one_at_a_time([3, 1, 2, 0], slots=2) == (["3", "1"], ["2", "0"])


@scenario(SCHEDULER)
def priority_scheduling_heap_property():
    planner = by_priority(slots=1)
    requests = add(planner, 8, priorities=[5, 1, 8, 3, 2, 7, 4, 6])
    served = []
    while planner.has_unfinished:
        plan = planner.schedule()
        served += [each.priority for each in plan.admitted]
        report(planner, plan, stopped=plan.sampled_ids)
    assert served == sorted(each.priority for each in requests)


@scenario(SCHEDULER)
def priority_scheduling_preemption_and_resumption_when_out_of_kv():
    planner = by_priority(slots=2, budget=200, blocks=5)
    (low,) = add(planner, 1, length=30, priorities=[1])
    step(planner)
    (high,) = add(planner, 1, length=32, first=1, priorities=[0])
    plan = planner.schedule()
    assert (plan.admitted, planner.kv_cache.num_free, len(planner.running)) == ([high], 0, 2)
    report(planner, plan, token=100)
    plan = planner.schedule()
    assert (plan.preempted, ids(row.request for row in plan.scheduled)) == ([low], ["1"])
    report(planner, plan, stopped=["1"])
    plan = planner.schedule()
    assert (plan.resumed, plan.admitted) == ([low], [])
    assert shares(plan) == {"0": 32}
    assert low.token_ids[31] == 100


# ----- block tables and cached prefixes -----


@scenario(PREFIXES)
def prefill():
    cache = memory()
    first, prefix = compute(cache, COMMON + [3] * 7)
    assert (prefix, first.block_table, len(first.block_hashes)) == ([], [1, 2, 3, 4], 3)
    parent = root_hash(cache.pool.seed)
    for index in range(3):
        parent = block_hash(parent, COMMON[16 * index : 16 * index + 16])
        assert cache.pool.hashes[index + 1] == parent
    assert cache.pool.hashes[4] is None
    second, prefix = compute(cache, COMMON + [3] * 5)
    assert (prefix, second.block_table) == ([1, 2, 3], [1, 2, 3, 5])
    assert cache.pool.ref_counts[1:6] == [2, 2, 2, 1, 1]
    assert cache.num_free == 5
    cache.free(first)
    cache.free(second)
    assert cache.pool.free_blocks() == [5, 4, 6, 7, 8, 9, 10, 3, 2, 1]
    third, prefix = compute(cache, COMMON + [3] * 6)
    assert (prefix, third.block_table, cache.num_free) == ([1, 2, 3], [1, 2, 3, 5], 6)
    cache.free(third)
    fourth, prefix = compute(cache, [99] * 160)
    assert (prefix, fourth.block_table) == ([], [5, 4, 6, 7, 8, 9, 10, 3, 2, 1])
    assert cache.num_free == 0


@scenario(PREFIXES, SCORES)
def prefill_plp(make):
    llm = make(enable_prefix_caching=True)
    prompt = list(range(5, 25))
    assert cached(llm, prompt) == 0
    assert cached(llm, prompt, prompt_logprobs=5) == 16  # vLLM: 0, since it needs the logits
    asked = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=5)
    assert len(llm.generate([prompt], asked, use_tqdm=False)[0].prompt_logprobs) == 20


@scenario(PREFIXES)
def decode():
    cache = memory()
    it, _ = compute(cache, COMMON + [3] * 7)
    assert go_on(cache, it, [8] * 4) == 0
    assert cache.pool.hashes[it.block_table[-1]] is None
    assert go_on(cache, it, [7] * 19) == 1
    assert cache.pool.hashes[it.block_table[-2]] is not None
    assert cache.pool.hashes[it.block_table[-1]] is None


@scenario(PREFIXES)
def evict():
    cache = memory()
    first, _ = compute(cache, range(87))
    second, _ = compute(cache, range(87, 87 + 48))
    assert (len(first.block_table), len(second.block_table), cache.num_free) == (6, 3, 1)
    cache.free(first)
    assert cache.pool.free_blocks() == [6, 10, 5, 4, 3, 2, 1]
    cache.free(second)
    assert cache.pool.free_blocks() == [6, 10, 5, 4, 3, 2, 1, 9, 8, 7]
    third, prefix = compute(cache, range(35))
    assert (prefix, third.block_table, cache.num_free) == ([1, 2], [1, 2, 6], 7)


@scenario(PREFIXES)
def hash_block_correct_reuse():
    cache = memory(blocks=2)
    first, _ = compute(cache, range(16))
    assert cache.pool.hashes[1] is not None
    cache.free(first)
    second, _ = compute(cache, range(15))
    assert second.block_table == [1]
    assert cache.pool.hashes[1] is None


@scenario(PREFIXES)
def computed_blocks_not_evicted():
    cache = memory(blocks=3)
    first, _ = compute(cache, range(16))
    second, _ = compute(cache, range(16, 32))
    assert (first.block_table, second.block_table) == ([1], [2])
    cache.free(first)
    cache.free(second)
    third, prefix = compute(cache, range(32))
    assert (prefix, third.block_table) == ([1], [1, 2])


@scenario(PREFIXES)
def basic_prefix_caching_disabled():
    cache = memory(blocks=5, block_size=4, prefix_caching=False)
    first, prefix = compute(cache, range(10))
    assert (prefix, len(first.block_table)) == ([], 3)
    cache.free(first)
    second, prefix = compute(cache, range(16))
    assert (prefix, len(second.block_table)) == ([], 4)
    assert cache.blocks_short(4) > 0
    with pytest.raises(CourseError):
        cache.allocate(request(range(4)), 4)


@scenario(PREFIXES)
def cache_blocks():
    cache = memory(blocks=5, block_size=4)
    it = request(range(14))
    cache.allocate(it, 14)
    for num_computed, num_found in ((8, 2), (11, 2), (14, 3)):
        cache.commit(it, num_computed)
        assert sum(digest is not None for digest in cache.pool.hashes) == num_found
        assert len(cache.cached_prefix(request(range(14)))) == num_found


@scenario(PREFIXES)
def cache_key_salting():
    cache = memory()
    first, _ = compute(cache, COMMON + [3] * 11, salt="one")
    assert first.block_hashes[0] == block_hash(root_hash(cache.pool.seed, "one"), COMMON[:16])
    assert first.block_hashes[1] == block_hash(first.block_hashes[0], COMMON[16:32])
    go_on(cache, first, [8] * 5)
    assert len(first.block_hashes) == 4
    assert len(cache.cached_prefix(request(COMMON + [4] * 11, salt="one"))) == 3
    assert cache.cached_prefix(request(COMMON + [4] * 11, salt="two")) == []


@scenario(PREFIXES)
def prefill_not_enough_free_blocks_with_computed_blocks():
    cache = memory()
    compute(cache, COMMON)
    second, prefix = compute(cache, COMMON * 2)
    assert prefix == [1, 2, 3]
    blocks = second.block_table
    cache.free(second)
    compute(cache, [7] * 32)
    assert cache.num_free == 5
    fourth = request(COMMON * 3)
    prefix = cache.cached_prefix(fourth)
    assert prefix == blocks
    assert cache.blocks_short(144, prefix) > 0
    with pytest.raises(CourseError):
        cache.allocate(fourth, 144, prefix)
    assert [cache.pool.ref_counts[block] for block in blocks] == [1, 1, 1, 0, 0, 0]


@scenario(PREFIXES, RESET)
def reset_prefix_cache(make):
    llm = make(enable_prefix_caching=True)
    prompt = range(5, 25)
    assert [cached(llm, prompt), cached(llm, prompt)] == [0, 16]
    llm.reset_prefix_cache()
    pool = llm.scheduler.kv_cache.pool
    assert not any(pool.hashes)
    assert pool.num_free == pool.capacity
    assert cached(llm, prompt) == 0


def hashed(*digests):
    """A pool whose blocks 1, 2, … are held and have these hashes."""
    pool = BlockPool(len(digests) + 1)
    for block, digest in zip(pool.allocate(len(digests)), digests, strict=True):
        pool.register(block, digest)
    return pool


def hand_out_again(pool, block):
    """The block is freed, and given to somebody else."""
    pool.free([block])
    assert pool.allocate(1) == [block]


@scenario(PREFIXES)
def maybe_evict_cached_block():
    pool = hashed(b"10", b"20", b"30", b"10")
    for block, found in ((2, [1, None, 3]), (1, [4, None, 3]), (3, [4, None, None]), (4, [None] * 3)):
        hand_out_again(pool, block)
        assert [pool.lookup(digest) for digest in (b"10", b"20", b"30")] == found


@scenario(PREFIXES)
def block_lookup_cache_single_block_per_key():
    pool = hashed(b"0", b"1")
    assert [pool.lookup(digest) for digest in (b"0", b"1", b"2")] == [1, 2, None]
    hand_out_again(pool, 1)
    assert [pool.lookup(digest) for digest in (b"0", b"1", b"2")] == [None, 2, None]
    hand_out_again(pool, 1)  # it has no hash by now
    hand_out_again(pool, 2)
    assert [pool.lookup(digest) for digest in (b"0", b"1", b"2")] == [None, None, None]


@scenario(PREFIXES)
def block_lookup_cache_multi_blocks_per_key():
    pool = hashed(b"0", b"0", b"1", b"1")
    for digest, first, second in ((b"0", 1, 2), (b"1", 3, 4)):
        assert pool.lookup(digest) == first
        hand_out_again(pool, first)
        assert pool.lookup(digest) == second
        hand_out_again(pool, second)
        assert pool.lookup(digest) is None


@scenario(PREFIXES, TEXT_ALONE)
def mm_prefix_caching(make):
    prompt = {"prompt_token_ids": [5] * 8, "multi_modal_data": {"image": "an image"}}
    with pytest.raises(CourseError, match="has no 'multi_modal_data'"):
        make().generate(prompt, use_tqdm=False)


# ----- blocks, the free queue, hashes -----


@scenario(UTILS, SEEDS)
def none_hash():
    first, second = (BlockPool(2).seed for _ in range(2))
    assert root_hash(first) != root_hash(second)  # vLLM: the same in every process
    assert root_hash(BlockPool(2, seed="a seed").seed) == root_hash(b"a seed")


@scenario(UTILS)
def none_hash_seed_random_for_non_crypto():
    assert len({BlockPool(2).seed for _ in range(5)}) == 5
    assert len({BlockPool(2, seed=12345).seed for _ in range(5)}) == 1


@scenario(UTILS)
def kv_cache_block():
    pool = BlockPool(2)
    assert (pool.ref_counts[1], pool.hashes[1]) == (0, None)
    pool.allocate(1)
    pool.touch([1])
    assert pool.ref_counts[1] == 2
    pool.free([1])
    assert pool.ref_counts[1] == 1
    pool.register(1, b"abc")
    assert pool.hashes[1] == b"abc"
    hand_out_again(pool, 1)
    assert pool.hashes[1] is None


@scenario(UTILS)
def free_kv_cache_block_queue_initialization():
    pool = BlockPool(2)
    assert (pool.num_free, pool.free_blocks()) == (1, [1])


@scenario(UTILS)
def free_kv_cache_block_queue_operations():
    pool = hashed(*map(bytes, range(1, 6)))
    for block in range(1, 6):
        pool.free([block])
    assert pool.free_blocks() == [1, 2, 3, 4, 5]
    assert pool.allocate(1) == [1]
    pool.touch([3])  # from the middle
    assert pool.free_blocks() == [2, 4, 5]
    pool.free([3])
    assert pool.free_blocks() == [2, 4, 5, 3]
    assert pool.allocate(4) == [2, 4, 5, 3]
    with pytest.raises(CourseError, match="1 blocks wanted, 0 free"):
        pool.allocate(1)


@scenario(UTILS)
def free_kv_cache_block_queue_append_n():
    pool = hashed(*map(bytes, range(1, 7)))
    for blocks, queue in (([], []), ([1], [1]), ([6, 5], [1, 5, 6]), ([4, 3, 2], [1, 5, 6, 2, 3, 4])):
        pool.free(blocks)  # the last one first
        assert pool.free_blocks() == queue


@scenario(UTILS)
def free_kv_cache_block_queue_prepend_n():
    pool = BlockPool(7)
    pool.allocate(5)
    for blocks, queue in (([], [6]), ([5, 4], [5, 4, 6]), ([2, 1], [2, 1, 5, 4, 6])):
        pool.free(blocks)  # without a hash
        assert pool.free_blocks() == queue
    assert pool.allocate(5) == [2, 1, 5, 4, 6]
    assert pool.num_free == 0


@scenario(UTILS)
def free_kv_cache_block_queue_popleft_n():
    pool = BlockPool(7)
    for count, blocks in ((0, []), (1, [1]), (2, [2, 3]), (3, [4, 5, 6])):
        assert pool.allocate(count) == blocks
        assert [pool.ref_counts[block] for block in blocks] == [1] * count
        assert not any(pool.is_free(block) for block in blocks)
    assert pool.num_free == 0


@scenario(UTILS)
def free_kv_cache_block_queue_get_all_free_blocks():
    pool = hashed(*map(bytes, range(1, 6)))
    assert pool.free_blocks() == []
    for block in range(1, 6):
        pool.free([block])
    assert pool.free_blocks() == [1, 2, 3, 4, 5]
    pool.touch([1, 3])
    assert pool.free_blocks() == [2, 4, 5]
    pool.free([3])
    assert pool.free_blocks() == [2, 4, 5, 3]


@scenario(UTILS)
def hash_block_tokens():
    assert block_hash(b"123", (1, 2, 3)) == block_hash(b"123", [1, 2, 3])
    others = [block_hash(b"123", (1, 2, 4)), block_hash(b"124", (1, 2, 3)), block_hash(b"123", (3, 2, 1))]
    assert len({block_hash(b"123", (1, 2, 3)), *others}) == 4


@scenario(UTILS)
def request_block_hasher():
    cache = memory(block_size=3)
    it, _ = compute(cache, range(6))
    first = block_hash(root_hash(cache.pool.seed), [0, 1, 2])
    assert it.block_hashes == [first, block_hash(first, [3, 4, 5])]


@scenario(UTILS)
def hash_request_tokens_no_mm_inputs():
    cache = memory(block_size=3)
    first, second, third = (compute(cache, tokens)[0] for tokens in (range(6), range(6), (0, 1, 9, 3, 4, 5)))
    assert first.block_hashes == second.block_hashes
    assert not set(first.block_hashes) & set(third.block_hashes)


@scenario(UTILS)
def generate_block_hash_extra_keys_no_mm_inputs():
    assert root_hash(b"seed") == root_hash(b"seed", salt="")


@scenario(UTILS)
def generate_block_hash_extra_keys_cache_salt():
    cache = memory(block_size=2)
    with_salt, without = (compute(cache, range(6), salt)[0].block_hashes for salt in ("salt", ""))
    assert not set(with_salt) & set(without)
    assert with_salt[1] == block_hash(with_salt[0], [2, 3])  # the first block carries it for all


@scenario(UTILS, TEXT_ALONE)
def generate_block_hash_extra_keys_lora(make):
    with pytest.raises(CourseError, match=r"lora_request .*: leave it out"):
        make().generate([[5, 6, 7]], lora_request=object(), use_tqdm=False)


# ----- all of them -----


def marked(name):
    return pytest.param(name, id=f"{name}-differs" if SCENARIOS[name].differs else name)


@pytest.mark.parametrize("name", [*map(marked, SCENARIOS)])
def test_as_in_vllm(name, request):
    run = SCENARIOS[name].run
    run(*map(request.getfixturevalue, inspect.signature(run).parameters))


def test_there_are_54_of_them_and_more():
    assert len(SCENARIOS) >= 54
    assert {each.file for each in SCENARIOS.values()} == {SCHEDULER, ASYNC, PREFIXES, UTILS}
    assert sum(not each.differs for each in SCENARIOS.values()) >= 43


def test_the_page_says_why_some_differ():
    beside = PAGE.read_text(encoding="utf-8").partition("<!-- made by")[0]
    for name, each in SCENARIOS.items():
        assert not each.differs or f"- **{each.differs}" in beside, f"{name}: {each.differs}"
