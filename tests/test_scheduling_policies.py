"""What the scheduler promises, what each policy decides, and what bad input is told."""

from __future__ import annotations

import ast
import copy
import inspect
from pathlib import Path

import pytest

import lessonlib.scheduling
from lessonlib.errors import CourseError
from lessonlib.scheduling.policies import ABLATIONS, POLICIES, SLATiers, make_policy
from lessonlib.scheduling.policy import Policy
from lessonlib.scheduling.request import RequestRejectedError
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.trace import Kind

EVERY = POLICIES | ABLATIONS
BASES = {"Policy", *(policy.__name__ for policy in EVERY.values())}
LESSONLIB = Path(lessonlib.scheduling.__file__).parents[1]
EVERY_POLICY = pytest.mark.parametrize("name", EVERY)


def step(scheduler: Scheduler, stopped=()):
    plan = scheduler.schedule()
    scheduler.update(plan, dict.fromkeys(plan.sampled_ids, 0), stopped)
    return plan


def ride_home(scheduler: Scheduler, limit=10_000):
    plans = []
    while scheduler.has_unfinished:
        plans.append(step(scheduler))
        assert len(plans) < limit
    return plans


# ----- the house rules -----


@EVERY_POLICY
def test_a_policy_overrides_at_most_three_hooks(name):
    not_decisions = {"name", "work_conserving", "waits_for"}
    hooks = {key for key in vars(Policy) if not key.startswith("_")} - not_decisions
    overridden = hooks & set(vars(EVERY[name]))
    assert len(overridden) <= 3, f"{name} overrides {', '.join(sorted(overridden))}: at most three hooks"


def test_the_scheduler_names_no_policy_and_nobody_sees_a_tensor():
    folder = Path(lessonlib.scheduling.__file__).parent
    scheduler = (folder / "scheduler.py").read_text().lower()
    assert not [name for name in POLICIES if name != "static" and f'"{name}"' in scheduler]
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "torch"], path
            inside = [name.split(".")[1] for name in names if name.startswith("lessonlib.")]
            assert set(inside) <= {"utilization", "trace", "errors", "scheduling"}, path


@EVERY_POLICY
def test_every_policy_tells_its_source(name):
    sources = ("et al.", "NVIDIA", "Hugging Face", "Liu")
    text = inspect.getdoc(EVERY[name]) or ""
    assert any(source in text for source in sources), (
        f"the docstring of {EVERY[name].__name__} names no source: say who described the rule, with one of {sources}"
    )


def test_every_policy_has_one_name_and_is_in_policies():
    classes = {
        f"{path.relative_to(LESSONLIB)}: {node.name}"
        for path in LESSONLIB.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and not node.name.startswith("_")
        and {ast.unparse(base).split(".")[-1] for base in node.bases} & BASES
    }
    assert classes == {f"scheduling/policies.py: {policy.__name__}" for policy in EVERY.values()}
    assert len(EVERY) == len(POLICIES) + len(ABLATIONS)
    for name, policy in EVERY.items():
        assert make_policy(name).name == vars(policy)["name"] == name


def test_a_policy_without_a_name_is_called_by_its_class():
    class Mine(EVERY["orca"]):
        pass

    assert Scheduler(2, policy=Mine()).build_trace().header.policy == "Mine"


# ----- promises -----


def test_a_preempted_request_keeps_its_words_and_computes_them_again():
    scheduler = Scheduler(slots=2, num_blocks=5, block_size=2)
    scheduler.add_request("ann", 2, 6)
    scheduler.add_request("bob", 2, 6)
    plans = ride_home(scheduler)
    (thrown_out,) = [request for plan in plans for request in plan.preempted]
    assert thrown_out.id == "bob"
    resumed = next(plan for plan in plans if plan.resumed)
    row = next(row for row in resumed.scheduled if row.id == "bob")
    assert (row.num_computed_tokens, row.is_prefill) == (0, True)
    assert row.num_scheduled_tokens == 2 + 3
    assert scheduler.build_trace().output_tokens().tolist() == [6, 6]


def test_a_resumed_request_finds_its_own_blocks():
    scheduler = Scheduler(slots=2, num_blocks=7, block_size=2, prefix_caching=True)
    scheduler.add_request("ann", [1, 2, 3], 6)
    scheduler.add_request("bob", [4, 5, 6], 6)
    plans = ride_home(scheduler)
    resumed = [request for plan in plans for request in plan.resumed]
    assert resumed
    boards = scheduler.build_trace().rows(Kind.BOARD)
    assert boards["tokens"][boards["request"] == 1].max() > 0


def test_decodes_are_not_held_up_by_a_stream_of_long_prompts():
    scheduler = Scheduler(slots=4, num_blocks=200, block_size=4, token_budget=8)
    scheduler.add_request("writer", 2, 40)
    step(scheduler)
    for arrival in range(39):
        scheduler.add_request(f"long {arrival}", 60, 2)
        assert [row.id for row in step(scheduler).decodes][:1] == ["writer"]


def test_a_long_prompt_of_a_better_tier_does_not_hold_up_those_who_write():
    scheduler = Scheduler(3, 200, 4, 8, SLATiers())
    scheduler.add_request("writer", 2, 40, priority=1)
    step(scheduler)
    scheduler.add_request("reader", 60, 2, priority=0)
    for _ in range(8):
        plan = step(scheduler)
        assert [row.id for row in plan.decodes] == ["writer"]
        assert [row.num_scheduled_tokens for row in plan.prefills] == [7]


def test_slots_limit_who_is_on_board_and_not_only_who_is_served():
    scheduler = Scheduler(slots=2, num_blocks=50, block_size=4, token_budget=2)
    for name in "abcd":
        scheduler.add_request(name, 9, 3)
    for plan in ride_home(scheduler):
        assert plan.running <= 2
        assert {row.slot for row in plan.scheduled} <= {0, 1}


@EVERY_POLICY
def test_a_request_as_large_as_the_pool_rides_alone(name):
    scheduler = Scheduler(2, 9, 4, 2, make_policy(name), max_model_len=32)
    scheduler.add_request("small", 3, 3)
    scheduler.add_request("large", 29, 3)
    scheduler.add_request("another", 3, 3)
    ride_home(scheduler)
    assert len(scheduler.build_trace().rows(Kind.FINISH)["step"]) == 3


@EVERY_POLICY
def test_whoever_can_never_fit_is_refused_by_name_at_once(name):
    scheduler = Scheduler(2, 9, 4, 8, make_policy(name), max_model_len=40)
    with pytest.raises(
        RequestRejectedError, match=r"request 'whale' rejected: .* 10 blocks, but there are 8"
    ):
        scheduler.add_request("whale", 30, 10)
    assert not scheduler.has_unfinished
    trace = scheduler.build_trace()
    assert trace.rows(Kind.REJECT)["request"].tolist() == [0]


def test_no_evict_never_evicts_and_max_utilization_does():
    evictions = {}
    for name in ("guaranteed-no-evict", "max-utilization", "orca", "static", "tgi"):
        scheduler = Scheduler(8, 12, 2, 32, make_policy(name))
        for row in range(12):
            scheduler.add_request(str(row), 3, 6)
        evictions[name] = sum(len(plan.preempted) for plan in ride_home(scheduler))
    assert evictions.pop("max-utilization") > 0
    assert not any(evictions.values())


def test_tgi_pauses_decode_for_prompts():
    scheduler = Scheduler(4, 100, 4, 32, make_policy("tgi"))
    scheduler.add_request("writer", 4, 30)
    step(scheduler)
    scheduler.add_request("reader", 8, 4)
    plan = step(scheduler)
    assert not plan.decodes
    assert [row.id for row in plan.prefills] == ["reader"]
    assert [row.id for row in step(scheduler).decodes] == ["writer", "reader"]


def test_tgi_waits_for_company_but_not_for_ever():
    scheduler = Scheduler(8, 500, 4, 64, make_policy("tgi", waiting_served_ratio=1.0, max_waiting_tokens=5))
    for name in "abc":
        scheduler.add_request(name, 2, 40)
    step(scheduler)
    scheduler.add_request("late", 2, 40)
    waited = next(steps for steps in range(50) if step(scheduler).prefills)
    assert waited == 5


def test_static_fills_the_car_or_takes_who_is_there():
    for fill, boards in ((False, 1), (True, 0)):
        scheduler = Scheduler(3, policy=make_policy("static", fill=fill))
        scheduler.still_to_come = 2
        scheduler.add_request("early", 2, 3)
        assert scheduler.schedule().running == boards


def test_sarathi_keeps_its_chunks_small():
    scheduler = Scheduler(4, 500, 4, 64, make_policy("sarathi", chunk_tokens=10))
    scheduler.add_request("writer", 4, 30)
    step(scheduler)
    scheduler.add_request("reader", 36, 4)
    assert [step(scheduler).num_tokens for _ in range(4)] == [10, 10, 10, 10]


def test_decodes_count_in_sarathis_budget_and_are_never_held_up_by_it():
    scheduler = Scheduler(8, 500, 4, 64, make_policy("sarathi", chunk_tokens=3))
    for number in range(5):
        scheduler.add_request(f"writer {number}", 1, 6)
    shares = [(len(plan.decodes), plan.num_tokens - len(plan.decodes)) for plan in ride_home(scheduler)]
    assert shares == [(0, 3), (3, 0), (3, 0), (3, 0), (3, 0), (3, 0), (0, 2), *[(2, 0)] * 5]
    crowded = Scheduler(8, 500, 4, 64)
    for number in range(5):
        crowded.add_request(f"writer {number}", 1, 6)
    step(crowded)
    crowded.policy = make_policy("sarathi", chunk_tokens=3)
    crowded.add_request("reader", 20, 2)
    plan = step(crowded)
    assert (len(plan.decodes), len(plan.prefills)) == (5, 0)


def test_splitfuse_boards_a_prompt_that_memory_cannot_hold_yet():
    boards = {}
    for name in ("vllm", "splitfuse"):
        scheduler = Scheduler(2, 11, 2, 4, make_policy(name))
        scheduler.add_request("writer", 8, 9)
        for _ in range(6):
            step(scheduler)
        scheduler.add_request("reader", 12, 2)
        boards[name] = len(step(scheduler).admitted)
    assert boards == {"vllm": 0, "splitfuse": 1}


def test_shortest_job_first_boards_the_short_ones_and_the_long_one_some_day():
    scheduler = Scheduler(1, policy=make_policy("sjf", patience=2))
    scheduler.add_request("novel", 1, 20)
    finished = []
    for arrival in range(60):
        scheduler.add_request(f"haiku {arrival}", 1, 1)
        plan = scheduler.schedule()
        finished += scheduler.update(plan, dict.fromkeys(plan.sampled_ids, 0))
    names = [request.id for request in finished]
    assert names[0] == "haiku 0"
    assert "novel" in names
    assert names.index("novel") <= 2 * 19 + 2


def test_a_better_tier_takes_a_seat_and_the_other_waits_its_bound():
    scheduler = Scheduler(1, policy=SLATiers(patience=10))
    scheduler.add_request("economy", 1, 30, priority=1)
    step(scheduler)
    scheduler.add_request("first", 1, 2, priority=0)
    plan = step(scheduler)
    assert [request.id for request in plan.preempted] == ["economy"]
    assert [request.id for request in plan.admitted] == ["first"]
    for late in range(30):
        scheduler.add_request(f"first {late}", 1, 2, priority=0)
    first_seats = 0
    while not any(request.id == "economy" for request in step(scheduler).resumed):
        first_seats += 1
        assert first_seats < 100


def test_tiers_of_equal_rank_do_not_throw_each_other_out():
    scheduler = Scheduler(1, policy=SLATiers())
    for name in "abc":
        scheduler.add_request(name, 1, 3, priority=1)
    assert not any(plan.preempted for plan in ride_home(scheduler))


def test_a_fork_shares_the_prompt_and_waits_where_it_cannot():
    scheduler = Scheduler(2, 40, 4)
    scheduler.add_request("ann", 10, 5)
    step(scheduler)
    second, third = scheduler.fork("ann", "ann 2"), scheduler.fork("ann", "ann 3")
    assert (second.is_running, second.num_cached_tokens) == (True, 9)
    assert not third.is_running
    plan = step(scheduler)
    assert len(plan.copies) == 1
    assert [(row.id, row.num_scheduled_tokens) for row in plan.prefills] == [("ann 2", 1)]
    ride_home(scheduler)
    assert scheduler.kv_cache.num_free == scheduler.kv_cache.capacity
    assert scheduler.build_trace().output_tokens().tolist() == [5, 5, 5]


def test_a_step_may_be_planned_before_the_last_is_reported():
    scheduler = Scheduler(2, 40, 4, max_in_flight=2)
    scheduler.add_request("ann", 3, 2)
    first, second = scheduler.schedule(), scheduler.schedule()
    assert [row.num_computed_tokens for row in (*first.scheduled, *second.scheduled)] == [0, 3]
    with pytest.raises(CourseError, match="step 0 has not been reported"):
        scheduler.schedule()
    scheduler.update(first, {"ann": 1})
    third = scheduler.schedule()
    assert not third.scheduled  # its last token is on the way already
    assert [request.id for request in scheduler.update(second, {"ann": 1})] == ["ann"]


# ----- bad input -----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slots": 0}, "0 slots"),
        ({"slots": 2, "num_blocks": 8, "block_size": 0}, "block size of 0"),
        ({"slots": 2, "num_blocks": 1}, "pool of 1 blocks"),
        ({"slots": 2, "num_blocks": -4}, "pool of -4 blocks"),
        ({"slots": 2, "token_budget": 0}, "token budget of 0"),
        ({"slots": 8, "token_budget": 7}, "give at least 8"),
        ({"slots": 2, "max_model_len": 1}, "model length of 1"),
        ({"slots": 2, "max_in_flight": 0}, "0 steps in flight"),
    ],
)
def test_sizes_that_nothing_could_run_with(options, message):
    with pytest.raises(CourseError, match=message):
        Scheduler(**options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sla", {"patience": -1}, "patience of -1"),
        ("sjf", {"patience": float("nan")}, "patience of nan"),
        ("tgi", {"waiting_served_ratio": -0.1}, "waiting_served_ratio of -0.1"),
        ("tgi", {"max_waiting_tokens": -1}, "max_waiting_tokens of -1"),
        ("sarathi", {"chunk_tokens": 0}, "chunks of 0 tokens"),
        ("vllm", {"patience": 1}, "does not take patience"),
        ("vlm", {}, "unknown policy 'vlm'"),
    ],
)
def test_policies_that_cannot_be(name, options, message):
    with pytest.raises(CourseError, match=message):
        make_policy(name, **options)


def snapshot(scheduler: Scheduler) -> str:
    """Everything that a scheduler knows, as text: it must not change where a call is refused."""
    states = [copy.copy(request) for request in scheduler.requests.values()]
    pool = scheduler.kv_cache.pool
    parts = (states, [r.id for r in scheduler.running], len(scheduler.waiting), scheduler.next_step)
    return repr((*parts, pool.ref_counts, pool.free_blocks(), scheduler.build_trace().to_dict()))


def busy_scheduler() -> Scheduler:
    scheduler = Scheduler(2, 20, 4, 8)
    for name in ("ann", "bob", "cyd"):
        scheduler.add_request(name, 5, 4)
    step(scheduler)
    return scheduler


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, old, new: s.add_request("ann", 3, 3), "'ann' is already here"),
        (lambda s, old, new: s.add_request("dot", 0, 3), "prompt of 0 tokens"),
        (lambda s, old, new: s.add_request("dot", [], 3), "prompt of 0 tokens"),
        (lambda s, old, new: s.add_request("dot", 3, 0), "asks for 0 tokens"),
        (lambda s, old, new: s.abort("nobody"), "no request 'nobody' to abort"),
        (lambda s, old, new: s.fork("nobody", "dot"), "no request 'nobody' to fork"),
        (lambda s, old, new: s.fork("ann", "bob"), "'bob' is already here"),
        (lambda s, old, new: s.schedule(), "step 1 has not been reported"),
        (lambda s, old, new: s.update(old, {"ann": 0, "bob": 0}), "plan of step 0, but step 1 is next"),
        (lambda s, old, new: s.update(new, {"ann": 0}), "no token for request 'bob'"),
        (lambda s, old, new: s.update(new, {"ann": 0, "bob": 0}, ["cyd"]), "'cyd' got no token in step 1"),
    ],
)
def test_a_refused_call_changes_nothing(call, message):
    scheduler = Scheduler(2, 20, 4, 10)
    for name in ("ann", "bob", "cyd"):
        scheduler.add_request(name, 5, 4)
    old = step(scheduler)
    new = scheduler.schedule()
    before = snapshot(scheduler)
    with pytest.raises(CourseError, match=message):
        call(scheduler, old, new)
    assert snapshot(scheduler) == before
    scheduler.update(new, {"ann": 0, "bob": 0})
    ride_home(scheduler)


def test_a_plan_cannot_be_reported_twice():
    scheduler = busy_scheduler()
    plan = step(scheduler)
    with pytest.raises(CourseError, match="but every plan is reported"):
        scheduler.update(plan, dict.fromkeys(plan.sampled_ids, 0))


def test_a_policy_may_not_throw_out_whoever_it_likes():
    class Spiteful(Policy):
        def victim(self, scheduler, candidates, request):
            return scheduler.running[0]

    scheduler = Scheduler(2, 4, 2, policy=Spiteful())
    scheduler.add_request("ann", 3, 2)
    scheduler.add_request("bob", 2, 3)
    with pytest.raises(CourseError, match="choose a candidate"):
        ride_home(scheduler)


def test_a_hook_by_its_former_name_is_refused_by_its_new_one():
    with pytest.raises(CourseError, match=r"Mine\.may_board is called may_admit now"):
        type("Mine", (Policy,), {"may_board": lambda self, scheduler: True})
