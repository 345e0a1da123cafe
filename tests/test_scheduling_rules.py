"""Every server's rule: the table against the policies, order and fairness of the new ones, answers that stay."""

import numpy as np
import pytest

from lessonlib.errors import CourseError
from lessonlib.metrics import metrics
from lessonlib.scheduling import rules
from lessonlib.scheduling.policies import (
    ABLATIONS,
    POLICIES,
    FairShares,
    SGLang,
    ShortestJobFirst,
    make_policy,
)
from lessonlib.scheduling.rules import RULES
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.simulation import compare_policies, rules_table, simulate
from lessonlib.trace import Kind
from lessonlib.workload import Workload

PROMPT, LIMIT, LONGEST, BUDGET = 10, 20, 64, 32
EVERY_RULE = pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.server} {rule.version}")


def running(policy, **options):
    """A scheduler with one request that decodes and another that waits, and a slot and memory for both."""
    scheduler = Scheduler(4, 200, 4, BUDGET, policy, max_model_len=LONGEST, **options)
    scheduler.add_request("here", PROMPT, LIMIT)
    plan = scheduler.schedule()
    scheduler.update(plan, dict.fromkeys(plan.sampled_ids, 1))
    scheduler.add_request("new", PROMPT, LIMIT)
    return scheduler


# ----- the table against the policies -----


def test_every_policy_has_a_rule():
    named = {rule.policy for rule in RULES}
    assert named <= set(POLICIES | ABLATIONS)
    assert set(POLICIES) - named == {"continuous"}
    assert len({(rule.server, rule.version) for rule in RULES}) == len(RULES)


@EVERY_RULE
def test_when_it_admits(rule):
    scheduler = running(policy := make_policy(rule.policy))
    empty = Scheduler(4, policy=make_policy(rule.policy))
    empty.add_request("new", PROMPT, LIMIT)
    assert empty.policy.may_admit(empty)
    alone = policy.may_admit(scheduler)
    for _ in range(5):  # a second one that decodes, of four, is too few to ask more than one in the queue
        scheduler.running.extend(scheduler.running)
    crowd = policy.may_admit(scheduler)
    scheduler.steps_since_prefill = 20
    patient = policy.may_admit(scheduler)
    expected = {
        rules.ANY_SLOT: (True, True, True),
        rules.EMPTY_BATCH: (False, False, False),
        rules.ENOUGH_WAIT: (True, False, True),
    }
    assert (alone, crowd, patient) == expected[rule.admits]


@EVERY_RULE
def test_how_it_reads_prompts(rule):
    scheduler = running(policy := make_policy(rule.policy))
    request = scheduler.waiting.peek()
    in_chunks = policy.chunk(scheduler, request, BUDGET - 2, BUDGET - 8) > 0
    alone = policy.pauses_decode(scheduler)
    names = {
        (False, False): rules.WHOLE_BESIDE,
        (False, True): rules.WHOLE_ALONE,
        (True, False): rules.CHUNKS_BESIDE,
        (True, True): rules.CHUNKS_ALONE,
    }
    if rule.admits == rules.EMPTY_BATCH:  # nothing decodes yet when a prompt is read
        assert rule.prompts == rules.ALL_FIRST
    else:
        assert rule.prompts == names[in_chunks, alone]


@EVERY_RULE
def test_what_memory_it_needs(rule):
    scheduler = running(policy := make_policy(rule.policy))
    request = policy.choose(scheduler)
    kept_free = policy.watermark(scheduler) * scheduler.kv_cache.block_size
    needed = policy.reserve(scheduler, request)
    expected = {
        rules.PROMPT: PROMPT,
        rules.PROMPT_AND_SHARE: PROMPT,
        rules.FIRST_CHUNK: 1,
        rules.WHOLE_ANSWER: PROMPT + LIMIT - 1,
        rules.LONGEST_SEQUENCE: LONGEST,
    }
    assert needed == expected[rule.memory]
    assert (kept_free > 0) == (rule.memory == rules.PROMPT_AND_SHARE)
    if kept_free:
        assert LIMIT < kept_free < 2 * LIMIT


@EVERY_RULE
def test_what_happens_when_memory_runs_short(rule):
    workload = Workload.from_lengths([30] * 12, [4] * 12)
    options = {"new_token_ratio": 0.1} if rule.policy == "sglang" else {}
    trace = simulate(workload, make_policy(rule.policy, **options), 6, 24, 4, 64, max_model_len=40)
    assert (metrics(trace)["preemptions"] > 0) == (rule.short == rules.LAST_AGAIN)


@EVERY_RULE
def test_which_comes_first(rule):
    """Four wait, each of which another rule would take first; by arrival it is the last that shares a prefix."""
    policy = ShortestJobFirst(predicted={"short": 1.0}) if rule.policy == "sjf" else make_policy(rule.policy)
    scheduler = Scheduler(8, 400, 4, 64, policy, prefix_caching=True, hash_seed=0)
    scheduler.add_request("seen", [7] * 12, 4, salt="ann")
    scheduler.add_request("of the other", [5] * 3, 4, salt="bob")
    plan = scheduler.schedule()
    scheduler.update(plan, dict.fromkeys(plan.sampled_ids, 1))
    scheduler.add_request("early", [1] * 12, 9, priority=2, salt="ann")
    scheduler.add_request("short", [2] * 12, 9, priority=2, salt="ann")
    scheduler.add_request("urgent", [3] * 12, 9, priority=0, salt="ann")
    scheduler.add_request("cached", [7] * 12, 9, priority=2, salt="ann")
    scheduler.add_request("other user", [4] * 12, 9, priority=2, salt="bob")
    firsts = {
        rules.ARRIVAL: "early",
        rules.SHORTEST: "short",
        rules.DEADLINE: "urgent",
        rules.LONGEST_PREFIX: "cached",
        rules.LEAST_SERVED: "other user",
    }
    assert policy.choose(scheduler).id == firsts[rule.first]


@EVERY_RULE
def test_what_it_must_know(rule):
    """A rule that is told nothing rides alike whatever limits, users and tiers requests name."""
    rng = np.random.default_rng(3)
    outputs, prompts = rng.integers(1, 20, 20), rng.integers(1, 20, 20)

    def ridden(**told):
        policy = make_policy(rule.policy, **told.pop("options", {}))
        scheduler = Scheduler(3, 20, 4, 32, policy, max_model_len=60)
        for row in range(20):
            scheduler.add_request(
                str(row), int(prompts[row]), told.get("limit", 20), priority=row % told.get("tiers", 1),
                salt=str(row % told.get("users", 1)),
            )  # fmt: skip
        while scheduler.has_unfinished:
            plan = scheduler.schedule()
            ends = [
                row.id
                for row in plan.sampled_rows
                if row.request.num_output_tokens + 1 == outputs[int(row.id)]
            ]
            scheduler.update(plan, dict.fromkeys(plan.sampled_ids, 1), ends)
        return scheduler.build_trace()

    plain = ridden()
    changes = {
        rules.LIMIT: ridden(limit=40),
        rules.TIERS: ridden(tiers=2),
        rules.USERS: ridden(users=2),
    }
    if rule.policy == "sjf":
        lengths = {str(row): float(length) for row, length in enumerate(outputs)}
        changes[rules.LENGTHS] = ridden(options={"predicted": lengths})
        del changes[rules.LIMIT]  # its stand-in where nothing is predicted
    told = {name for name, trace in changes.items() if not trace.same_ride(plain)}
    if rule.policy != "static":  # with these slots, memory is never short of a batch
        assert told == ({rule.knows} - {rules.NOTHING})


def test_the_table_is_shown():
    cells = rules_table().cells
    assert len(cells) == len(RULES) + 1
    assert {len(row) for row in cells} == {9}
    assert "SGLang" in repr(rules_table())


# ----- SGLang -----


def test_the_longest_prefix_comes_first_until_too_many_wait():
    scheduler = Scheduler(1, 400, 4, 64, SGLang(), prefix_caching=True, hash_seed=0)
    scheduler.add_request("seen", [7] * 12, 1)
    plan = scheduler.schedule()
    scheduler.update(plan, {"seen": 1})
    for row in range(127):
        scheduler.add_request(f"cold {row}", [row + 10] * 12, 4)
    scheduler.add_request("warm", [7] * 16, 4)
    assert scheduler.policy.choose(scheduler).id == "warm"
    scheduler.add_request("one too many", [9] * 4, 4)
    assert scheduler.policy.choose(scheduler).id == "cold 0"


def test_a_higher_ratio_preempts_less():
    workload = Workload.from_lengths([30] * 20, [8] * 20)
    counts = [
        metrics(simulate(workload, SGLang(ratio), 8, 40, 4, 64))["preemptions"] for ratio in (0.0, 0.4, 1.0)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 0 == counts[-1]
    with pytest.raises(CourseError, match="a new_token_ratio of 2"):
        SGLang(2)


# ----- fair shares -----


def shares(policy, crowd=40, few=5, prefix_caching=False):
    """Median and worst time to first token, in steps, of a user with many requests and one who comes a little later."""
    outputs, prompts = [12] * (crowd + few), [6] * (crowd + few)
    arrivals = [0] * crowd + [3] * few
    salts = ["many"] * crowd + ["few"] * few
    trace = simulate(
        Workload.from_lengths(outputs, prompts, arrivals), policy, 4, 60, 4, 32, salts=salts,
        prefix_caching=prefix_caching,
    )  # fmt: skip
    times = trace.first_token_time()
    return times[:crowd], times[crowd:], trace


def test_a_user_with_few_requests_does_not_wait_for_one_with_many():
    _, behind, _ = shares("vllm")
    _, fair, trace = shares(FairShares())
    assert np.median(fair) < np.median(behind) / 3
    assert trace.output_tokens().tolist() == [12] * 45


def test_the_bound_on_unfairness():
    """While both have requests waiting, weighted service differs by at most 2 max(w_p L, w_q M), as proved."""
    rng = np.random.default_rng(4)
    for _ in range(40):
        policy, blocks, size = FairShares(), int(rng.integers(12, 40)), 4
        scheduler = Scheduler(int(rng.integers(1, 6)), blocks, size, 40, policy)
        for row in range(60):
            scheduler.add_request(
                f"{row}", int(rng.integers(1, 12)), int(rng.integers(1, 20)), salt="ab"[row % 2]
            )
        bound = 2 * max(policy.input_weight * 12, policy.output_weight * (blocks - 1) * size)
        while {request.salt for request in scheduler.waiting.in_order()} == {"a", "b"}:
            plan = scheduler.schedule()
            scheduler.update(plan, dict.fromkeys(plan.sampled_ids, 1))
            assert abs(policy.served("a") - policy.served("b")) <= bound


def test_nobody_saves_service_up():
    policy = FairShares()
    scheduler = Scheduler(2, policy=policy)
    scheduler.add_request("a1", 5, 20, salt="a")
    scheduler.add_request("b1", 5, 1, salt="b")
    for _ in range(10):
        plan = scheduler.schedule()
        scheduler.update(plan, dict.fromkeys(plan.sampled_ids, 1))
    assert policy.served("a") == 5 + 2 * 10
    assert policy.served("b") == 5 + 2
    scheduler.add_request("b2", 5, 1, salt="b")
    assert policy.served("b") == policy.served("a")
    scheduler.add_request("c1", 5, 1, salt="c")
    assert policy.served("c") == policy.served("a")
    with pytest.raises(CourseError, match=r"weights of -1 and 2"):
        FairShares(-1)


# ----- all of them -----


def test_an_answer_does_not_depend_on_the_rule():
    """Whatever the order, everyone gets all tokens, and each token once."""
    rng = np.random.default_rng(5)
    workload = Workload.from_lengths(rng.integers(1, 30, 40), rng.integers(1, 30, 40))
    prompts = [[int(token) for token in rng.integers(0, 2, length)] for length in workload.prompt_tokens]
    salts = [str(row % 3) for row in range(40)]
    for name in POLICIES:
        trace = simulate(
            workload,
            name,
            5,
            40,
            4,
            32,
            max_tokens=30,
            prompts=prompts,
            salts=salts,
            prefix_caching=True,
            hash_seed=0,
        )
        assert trace.output_tokens().tolist() == workload.output_tokens.tolist(), name
        assert len(trace.rows(Kind.FINISH)["request"]) == 40


def test_all_are_compared_side_by_side():
    workload = Workload.from_lengths([5, 9, 3, 7] * 4, [4, 8, 2, 6] * 4)
    rows = compare_policies(workload, slots=2, num_blocks=20, block_size=4, salts=["a", "b"] * 8)
    assert [row["policy"] for row in rows] == list(POLICIES)
    assert all(row["finished"] == 16 for row in rows)
