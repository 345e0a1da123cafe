"""Simulations: the same ride as the slot scheduler, honest metrics, step costs and their fit."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lessonlib.errors import CourseError
from lessonlib.metrics import (
    decode_rows,
    kv_tokens,
    metrics,
    percentiles,
    prefill_tokens,
    weighted_percentiles,
)
from lessonlib.scheduling.policies import POLICIES, VLLM, ShortestJobFirst, StaticBatching
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.simulation.compare import (
    ORACLE,
    compare_policies,
    format_table,
    predicted_lengths,
    simulate_on,
)
from lessonlib.simulation.costs import CostModel, Hardware
from lessonlib.simulation.simulator import Simulator, simulate
from lessonlib.simulation.slots import ride
from lessonlib.trace import Kind, Trace
from lessonlib.workload import Workload, azure_lengths, poisson_arrivals, uniform_lengths

LESSON = [687, 527, 433, 252, 280, 80, 106, 62, 181, 659, 537, 734, 427, 504, 778, 597, 524, 457, 469, 751]
COST = CostModel(launch=0.001, weights=0.004, per_prefill_token=2e-5, per_kv_token=2e-7, per_decode_row=3e-5)


@st.composite
def workloads(draw):
    count = draw(st.integers(1, 25))
    lengths = st.lists(st.integers(1, 12), min_size=count, max_size=count)
    prompts = draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))
    times = draw(st.lists(st.floats(0, 40, allow_nan=False), min_size=count, max_size=count))
    return Workload.from_lengths(draw(lengths), prompts, np.sort(times))


# ----- parity with the slot scheduler -----


@settings(max_examples=150, deadline=None)
@given(workloads(), st.integers(1, 6))
def test_unlimited_memory_and_free_prefill_give_the_slot_scheduler(workload, slots):
    for name in ("static", "continuous"):
        assert simulate(workload, name, slots, free_prefill=True).same_ride(ride(workload, slots, name))
    filled = simulate(workload, StaticBatching(fill=True), slots, free_prefill=True)
    assert filled.same_ride(ride(workload, slots, "static", fill=True))


def test_the_reference_figures_of_the_course():
    workload = Workload.from_lengths(LESSON)
    for name, steps in (("static", 2216), ("continuous", 1490)):
        trace = simulate(workload, name, 8, free_prefill=True)
        assert (trace.num_steps, trace.tokens) == (steps, 9045)


# ----- every policy does all the work -----


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("cost", [None, COST])
def test_everyone_gets_home_with_every_token(name, cost):
    workload = Workload.from_lengths(
        uniform_lengths(60, 1, 40, seed=3),
        uniform_lengths(60, 1, 90, seed=4),
        np.sort(uniform_lengths(60, 1, 60) / 1.0),
    )
    if cost:
        workload = workload.with_arrivals(workload.arrival_time * 0.005, "seconds")
    trace = simulate(workload, name, 8, 40, 8, 64, cost)
    assert trace.output_tokens().tolist() == workload.output_tokens.tolist()
    numbers = metrics(trace)
    due = int((workload.prompt_tokens + workload.output_tokens - 1).sum())
    prefills, decodes = (
        {(int(r), int(s)) for r, s in zip(rows["request"], rows["step"], strict=True)}
        for rows in (trace.rows(Kind.PREFILL), trace.rows(Kind.DECODE))
    )
    done = (
        numbers["prefill_tokens"] + numbers["tokens"] - len(prefills & decodes)
    )  # those come with a prompt's last
    assert done == due + numbers["recomputed_tokens"]
    assert 0 < numbers["kv_utilization"] <= 1
    assert 0 < numbers["peak_blocks"] <= 39
    json.dumps(numbers)


def test_prefix_hits_save_work_and_change_no_ride():
    prompts = [[7] * 40 + [row] for row in range(12)]
    workload = Workload.from_lengths([5] * 12, [41] * 12)
    options = {"slots": 2, "num_blocks": 60, "block_size": 8, "token_budget": 64, "prompts": prompts}
    cold, warm = (metrics(simulate(workload, **options, prefix_caching=caching)) for caching in (False, True))
    assert cold["cached_tokens"] == 0
    assert warm["cached_tokens"] == 40 * 11 - 40  # the second boards in the very step that computes the first
    assert warm["prefill_tokens"] == cold["prefill_tokens"] - warm["cached_tokens"]
    salted = metrics(
        simulate(workload, **options, prefix_caching=True, salts=[str(row) for row in range(12)])
    )
    assert salted["cached_tokens"] == 0


def test_a_promise_longer_than_the_answer_costs_those_who_reserve():
    workload = Workload.from_lengths([5] * 20, [5] * 20)
    options = {"slots": 8, "num_blocks": 21, "block_size": 5, "max_tokens": 45}
    no_evict, paged = (simulate(workload, name, **options) for name in ("guaranteed-no-evict", "vllm"))
    assert no_evict.tokens == paged.tokens == 100
    assert no_evict.num_steps > paged.num_steps


def test_the_refused_are_counted_and_the_rest_ride_on():
    workload = Workload.from_lengths([3, 90, 3], [4, 4, 4])
    numbers = metrics(simulate(workload, "vllm", 2, 9, 4))
    assert (numbers["rejected"], numbers["finished"]) == (1, 2)


@pytest.mark.parametrize("prompt_first", ["tgi", "static"])
def test_chunked_prefill_shortens_the_longest_pause(prompt_first):
    workload = Workload.from_lengths(
        azure_lengths(120), uniform_lengths(120, 800, 1600), poisson_arrivals(120, 6.0), "seconds"
    )
    options = {"slots": 32, "num_blocks": 6000, "token_budget": 4096, "cost_model": COST}
    chunked = metrics(simulate(workload, "sarathi", **options))
    other = metrics(simulate(workload, prompt_first, **options))
    assert chunked["itl_seconds"]["p99"] < other["itl_seconds"]["p99"]


# ----- metrics from a Trace alone -----


@given(st.lists(st.tuples(st.floats(0, 9), st.integers(0, 5)), min_size=1, max_size=20))
def test_weighted_percentiles_are_numpys(pairs):
    values, counts = (np.array(column) for column in zip(*pairs, strict=True))
    assert weighted_percentiles(values, counts) == pytest.approx(percentiles(np.repeat(values, counts)))


def test_inter_token_latency_counts_the_pause_of_a_preemption():
    workload = Workload.from_lengths([6, 6], [2, 2])
    trace = simulate(workload, "continuous", 2, 5, 2)
    steps = []
    for request in range(2):
        rows = trace.rows(Kind.DECODE)
        mine = rows["request"] == request
        times = [
            s + i for s, n in zip(rows["step"][mine], rows["tokens"][mine], strict=True) for i in range(n)
        ]
        steps += np.diff(times).tolist()
    assert max(steps) > 1
    assert metrics(trace)["itl_steps"] == pytest.approx(percentiles(np.array(steps)))


class Recorder(Simulator):
    """Keeps what the plans said, to hold against what the Trace says."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.kv, self.prompts_read, self.decodes, self.paid = [], [], [], []

    def step(self):
        schedule = self.scheduler.schedule

        def watched():
            plan = schedule()
            self.kv.append(sum(row.seq_len for row in plan.scheduled))
            self.prompts_read.append(sum(row.num_scheduled_tokens for row in plan.prefills))
            self.decodes.append(len(plan.decodes))
            self.paid.append(COST.seconds(plan))
            return plan

        self.scheduler.schedule = watched
        super().step()
        self.scheduler.schedule = schedule


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("free_prefill", [False, True])
def test_the_trace_tells_what_each_step_read(name, free_prefill):
    workload = Workload.from_lengths(uniform_lengths(30, 1, 20, seed=1), uniform_lengths(30, 1, 30, seed=2))
    scheduler = Scheduler(6, 30, 4, 16, POLICIES[name](), max_model_len=60, free_prefill=free_prefill)
    recorder = Recorder(workload, scheduler)
    trace = recorder.run()
    assert kv_tokens(trace).tolist() == recorder.kv
    assert prefill_tokens(trace).tolist() == recorder.prompts_read
    assert decode_rows(trace).tolist() == recorder.decodes
    assert COST.predict(trace) == pytest.approx(recorder.paid)


# ----- step costs -----


def test_a_fit_recovers_the_costs_it_was_given():
    workload = Workload.from_lengths(
        azure_lengths(100), uniform_lengths(100, 20, 600), poisson_arrivals(100, 5.0), "seconds"
    )
    trace = simulate(workload, "vllm", 16, 2000, 16, 256, COST)
    fitted = CostModel.fit(trace)
    assert fitted.launch == pytest.approx(COST.launch + COST.weights)
    assert fitted.per_prefill_token == pytest.approx(COST.per_prefill_token)
    assert fitted.per_kv_token == pytest.approx(COST.per_kv_token)
    assert fitted.per_decode_row == pytest.approx(COST.per_decode_row)
    assert fitted.predict(trace) == pytest.approx(trace.steps["duration"])


def test_costs_fitted_on_one_ride_predict_another():
    workload = Workload.from_lengths(uniform_lengths(40, 5, 60), uniform_lengths(40, 20, 200, seed=1))
    fitted = CostModel.fit(simulate(workload, "vllm", 16, 400, 16, 64, COST))
    other = Workload.from_lengths(uniform_lengths(30, 5, 90, seed=2), uniform_lengths(30, 5, 99, seed=3))
    measured = simulate(other, "static", 4, 400, 16, 512, COST)
    assert simulate(other, "static", 4, 400, 16, 512, fitted).span == pytest.approx(measured.span)


def test_a_fit_finds_the_compute_that_hides_behind_reading_the_weights():
    """Steps of up to 8 rows cost the same: 8 x 0.5 ms are hidden."""
    true = CostModel(0.03, 0.0, 1.2e-3, 1e-6, per_decode_row=5e-4, hidden_compute=4e-3)
    workload = Workload.from_lengths(uniform_lengths(40, 5, 60), uniform_lengths(40, 20, 200, seed=1))
    measured = simulate(workload, "vllm", 16, 400, 16, 64, true)
    fitted = CostModel.fit(measured)
    assert vars(fitted) == pytest.approx(vars(true), rel=1e-6)
    assert fitted.predict(measured) == pytest.approx(measured.steps["duration"])


def test_steps_that_were_held_up_count_in_the_sum():
    workload = Workload.from_lengths(uniform_lengths(60, 5, 60), uniform_lengths(60, 20, 200, seed=1))
    trace = simulate(workload, "vllm", 16, 400, 16, 64, COST)
    stalls = np.where(np.random.default_rng(0).random(trace.num_steps) < 0.2, 4.0, 1.0)
    steps = {**trace.steps, "duration": trace.steps["duration"] * stalls}
    held_up = Trace(trace.header, trace.events, steps, trace.requests)
    assert CostModel.fit(held_up).predict(held_up).sum() == pytest.approx(steps["duration"].sum(), rel=0.02)


def test_no_more_compute_is_hidden_than_reading_the_weights_takes():
    """Rows cost nothing here. A slow start of the largest batch must not be told as dear rows, hidden elsewhere."""
    workload = Workload.from_lengths(uniform_lengths(48, 16, 256), uniform_lengths(48, 20, 200, seed=1))
    trace = simulate(workload, "static", 32, 2000, 16, 8192, CostModel(0.02, 0.0, 2e-5, 0.0))
    slow = np.where(np.arange(trace.num_steps) < 12, 2.5, 1.0)
    fitted = CostModel.fit(replace(trace, steps={**trace.steps, "duration": trace.steps["duration"] * slow}))
    assert fitted.hidden_compute <= fitted.launch
    assert fitted.per_decode_row < 1e-3


def test_traces_are_fitted_as_one():
    workloads = (Workload.from_lengths(uniform_lengths(30, 5, 60, seed=seed), [40] * 30) for seed in (0, 1))
    traces = [
        simulate(workload, "vllm", slots, 400, 16, 64, COST)
        for workload, slots in zip(workloads, (4, 16), strict=True)
    ]
    fitted = CostModel.fit(*traces)
    assert [fitted.predict(trace).sum() for trace in traces] == pytest.approx(
        [trace.span for trace in traces]
    )
    with pytest.raises(CourseError, match="in steps"):
        CostModel.fit(traces[0], simulate(Workload.from_lengths([9, 9]), "vllm", 2))


def test_a_fit_has_no_negative_costs():
    workload = Workload.from_lengths(uniform_lengths(20, 5, 50), uniform_lengths(20, 5, 50))
    trace = simulate(workload, "vllm", 4, 200, 16, 64, CostModel(0.01, 0.0, 1e-5, 0.0))
    noise = np.random.default_rng(0).normal(0, 1e-4, trace.num_steps)
    steps = {**trace.steps, "duration": trace.steps["duration"] + noise}
    fitted = CostModel.fit(Trace(trace.header, trace.events, steps, trace.requests))
    assert min(vars(fitted).values()) >= 0


def test_llama_2_7b_on_an_h100_by_hand():
    machine = Hardware.parse("h100:llama-2-7b")
    assert machine.model.parameters == pytest.approx(6.738e9, rel=1e-3)
    assert machine.model.kv_bytes_per_token == 524_288
    cost = CostModel.from_hardware(machine)
    assert cost.weights == pytest.approx(13.2e9 / 3.015e12, rel=0.01)
    assert 1 / (cost.launch + cost.weights) == pytest.approx(185, abs=5)
    assert machine.num_blocks(16) == int((72e9 - 2 * machine.model.parameters) // (16 * 524_288))


@pytest.mark.parametrize("spec", ["h100", "h100:gpt-9", "abacus:llama-2-7b", ""])
def test_unknown_hardware_is_told_what_there_is(spec):
    with pytest.raises(CourseError, match="llama-2-7b"):
        Hardware.parse(spec)


def test_a_model_that_does_not_fit():
    with pytest.raises(CourseError, match="no room for K/V"):
        Hardware.parse("t4:llama-3.1-8b").num_blocks()


# ----- side by side, and bad input -----


SHORT_OF_MEMORY = {"slots": 24, "num_blocks": 300, "token_budget": 512, "cost_model": COST}


@pytest.fixture
def crowd() -> Workload:
    """Real lengths, more than memory holds."""
    return Workload.from_lengths(azure_lengths(60, seed=1), azure_lengths(60, seed=2))


def test_no_policy_is_told_more_than_another(crowd, monkeypatch):
    """A policy that reserves memory by `max_tokens` won a race in which `max_tokens` was each answer's own length."""
    told = set()
    add_request = Scheduler.add_request

    def noted(scheduler, name, prompt, max_tokens, **options):
        told.add(max_tokens)
        return add_request(scheduler, name, prompt, max_tokens, **options)

    monkeypatch.setattr(Scheduler, "add_request", noted)
    longest = crowd.output_tokens.max()
    compare_policies(crowd, **SHORT_OF_MEMORY)
    assert told == {longest}
    told.clear()
    simulate_on(crowd, list(POLICIES), 24, 300, hardware="h100:llama-2-7b")
    assert told == {longest}
    told.clear()
    compare_policies(crowd, ["vllm", "static"], max_tokens=2_000, **SHORT_OF_MEMORY)
    assert told == {2_000}


def test_a_row_with_an_oracle_says_so(crowd):
    (blind,), (told,) = (
        compare_policies(crowd, ["guaranteed-no-evict"], oracle=told, **SHORT_OF_MEMORY)
        for told in (False, True)
    )
    assert told["policy"] == "guaranteed-no-evict" + ORACLE
    assert blind["policy"] == "guaranteed-no-evict"
    assert told["seconds"] < blind["seconds"]


def test_a_server_is_what_it_does_by_default(crowd):
    """vLLM V1 keeps no blocks back, so its rule is that of `continuous`; its first scheduler kept 1%."""
    rows = compare_policies(crowd, ["continuous", "vllm", VLLM(watermark=0.1)], **SHORT_OF_MEMORY)
    continuous, vllm, older = ({**row, "policy": ""} for row in rows)
    assert vllm == continuous
    assert older["preemptions"] < vllm["preemptions"]


def test_shortest_first_knows_what_it_is_told(crowd):
    """Nothing where all have one limit; an oracle helps, and a predictor that is far off helps less."""
    policies = ["continuous", "sjf"]
    policies += [ShortestJobFirst(predicted=predicted_lengths(crowd, error)) for error in (0.0, 3.0)]
    rows = compare_policies(crowd, policies, **SHORT_OF_MEMORY)
    first_token = [row["ttft_seconds"]["p50"] for row in rows]
    assert first_token[1] == first_token[0]
    assert first_token[2] < min(first_token[0], first_token[3])
    assert [row["policy"] for row in rows] == ["continuous", "sjf", "sjf-predicted", "sjf-predicted"]
    with pytest.raises(CourseError, match="a predictor with error -1"):
        predicted_lengths(crowd, -1)
    with pytest.raises(CourseError, match="a watermark of 2: give a share of the blocks"):
        VLLM(watermark=2)


def test_the_table_has_a_row_for_each_policy():
    workload = Workload.from_lengths([5, 9, 3, 7], [4, 8, 2, 6])
    rows = compare_policies(workload, slots=2, num_blocks=20, block_size=4)
    assert [row["policy"] for row in rows] == list(POLICIES)
    lines = format_table(rows).splitlines()
    assert len(lines) == len(POLICIES) + 1
    assert len({len(line) for line in lines}) == 1
    format_table(compare_policies(workload, ["vllm"], slots=2, cost_model=COST))


def test_units_prompts_and_limits_are_checked():
    late = Workload.from_lengths([3, 3], [2, 2], [0, 5.0])
    with pytest.raises(CourseError, match="needs seconds"):
        simulate(late, cost_model=COST)
    with pytest.raises(CourseError, match="in_steps"):
        simulate(late.with_arrivals(late.arrival_time, "seconds"))
    with pytest.raises(CourseError, match="prompts' lengths"):
        simulate(late, prompts=[[1], [2]])
    with pytest.raises(CourseError, match="max_tokens 2"):
        simulate(late, max_tokens=2)


def test_a_policy_that_serves_nobody_is_named():
    class Asleep(POLICIES["vllm"]):
        name = "asleep"

        def may_admit(self, scheduler):
            return False

    with pytest.raises(CourseError, match="'asleep' leaves 2 requests waiting"):
        simulate(Workload.from_lengths([1, 1]), Asleep())


def test_from_the_words_of_a_command_line():
    workload = Workload.from_lengths([5, 9, 3, 7], [4, 8, 2, 6])
    ticks, (seconds,) = (
        simulate_on(workload, ["vllm", "tgi"], 2, 20, 4),
        simulate_on(workload, ["vllm"], 2, hardware="h100:llama-2-7b"),
    )
    assert [trace.header.policy for trace in ticks] == ["vllm", "tgi"]
    assert (seconds.header.clock, seconds.header.num_blocks) == ("seconds", 6976)
    with pytest.raises(CourseError, match="unknown policy 'lift'"):
        simulate_on(workload, ["vllm", "lift"], 2)


def test_the_parts_of_a_decode_step_are_its_cost_until_arithmetic_shows():
    cost = CostModel.from_hardware("h100:llama-2-7b")
    riders, context = [1, 16, 64], 512
    parts = cost.decode_parts_ms(riders, context)
    for place, many in enumerate(riders):
        whole = cost.launch + cost.weights + cost.per_kv_token * context * many
        assert sum(part[place] for part in parts.values()) == pytest.approx(1000 * whole)
    assert len(set(parts["weights"])) == 1
    (shown,) = cost.decode_parts_ms([1_000], context)["arithmetic"]
    assert shown == pytest.approx(1000 * (1_000 * cost.per_prefill_token - cost.weights))
