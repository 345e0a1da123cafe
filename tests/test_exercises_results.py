"""Exercise 06 on real rides and records: its worked answers say what the course's own code does."""

from __future__ import annotations

import runpy
from pathlib import Path
from random import Random

import numpy as np
import pytest

from lessonlib import recorded
from lessonlib.checks import EXERCISES, hint
from lessonlib.checks.ex06 import SPLIT
from lessonlib.checks.ex06.predict import BEND, EVEN, FLAT, NEAR, SHARED, Machine
from lessonlib.cli import main
from lessonlib.errors import CourseError
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.simulation.slots import ride
from lessonlib.split import split
from lessonlib.trace import Kind
from lessonlib.workload import Workload

EX06 = runpy.run_path(str(Path(__file__).parents[1] / "solutions" / "ex06.py"))
SEEDS = range(10)


def rides():
    """Traces with pauses, with preemptions, and those of every recorded comparison."""
    for seed in SEEDS:
        chance = np.random.default_rng(seed)
        arrivals = np.cumsum(chance.integers(0, 6, 30)).astype(float)
        yield ride(Workload.from_lengths(chance.integers(1, 20, 30), arrival_time=arrivals), 4)
        yield in_tight_memory(seed)
    for what in ("", "split", "online"):
        for found in recorded.comparisons(what).values():
            yield from (each.trace for each in found.results if each.trace)


def in_tight_memory(seed):
    """A ride in which requests are thrown out and come back, and some give up."""
    rng, scheduler = Random(seed), Scheduler(4, 9, 4, token_budget=12)
    for place in range(12):
        scheduler.add_request(f"{place}", [1] * rng.randint(1, 10), rng.randint(1, 12))
    while scheduler.has_unfinished:
        plan = scheduler.schedule()
        scheduler.update(plan, dict.fromkeys(plan.sampled_ids, 5))
        if scheduler.running and rng.random() < 0.02:
            scheduler.abort(scheduler.running[-1].id)
    return scheduler.build_trace()


def test_goodput_is_the_traces():
    seen = set()
    for trace in rides():
        ttft, tpot = (float(np.median(each)) for each in (trace.first_token_time(), per_token(trace)))
        steps, requests = trace.steps_and_requests()
        utilization, kept, goodput = EX06["goodput"](trace.header.slots, steps, requests, ttft, tpot)
        assert utilization == pytest.approx(trace.utilization)
        assert kept == in_time(trace, ttft, tpot)
        assert goodput == pytest.approx(len(kept) / trace.span)
        seen |= {"kept"} if kept else set()
        seen |= {"broken"} if len(kept) < trace.num_requests else set()
        seen |= {"thrown out"} if len(trace.rows(Kind.PREEMPT)["request"]) else set()
        seen |= {"gave up"} if len(trace.rows(Kind.ABORT)["request"]) else set()
    assert seen == {"kept", "broken", "thrown out", "gave up"}


def per_token(trace):
    found = trace.time_per_output_token()
    return found if len(found) else np.zeros(1)


def in_time(trace, ttft_limit, tpot_limit):
    """The same by the Trace's own metrics."""
    finished = trace.rows(Kind.FINISH)["request"].tolist()
    started = np.unique(trace.rows(Kind.DECODE)["request"]).tolist()
    ttft = dict(zip(started, trace.first_token_time().tolist(), strict=True))
    several = [request for request in finished if trace.output_tokens()[request] > 1]
    tpot = dict(zip(several, trace.time_per_output_token().tolist(), strict=True))
    kept = [at for at in finished if ttft[at] <= ttft_limit and tpot.get(at, 0.0) <= tpot_limit]
    return sorted(kept)


def test_split_is_the_courses():
    for found in recorded.comparisons("split").values():
        parts = split(found, found.rows[0].name)
        runs = [found.of(part.contender, found.rows[0].name).repetitions for part in parts]
        chain = [
            {"steps": part.steps, "seconds": [each.seconds for each in of]}
            for part, of in zip(parts, runs, strict=True)
        ]
        assert EX06["split"](chain) == [
            (pytest.approx(part.fewer_steps), pytest.approx(part.quicker_steps)) for part in parts[1:]
        ]


@pytest.mark.parametrize(
    ("kind", "machine"),
    [
        (FLAT, Machine(base=0.001, weights=0.01)),
        (SHARED, Machine(arithmetic=0.001)),
        (EVEN, Machine(weights=0.01, memory=0.0003)),
        (BEND, Machine(base=0.001, weights=0.01, arithmetic=0.002)),
    ],
)
def test_a_machine_is_foreseen(kind, machine):
    sizes = [1, 2, 4, 8, 16, 32]
    told = EX06["predict"](sizes, [machine.rate(size) for size in sizes], 64)
    assert abs(told / machine.rate(64) - 1) <= NEAR[kind]


def test_a_prediction_keeps_to_what_is_possible_on_every_record():
    for found in [*recorded.comparisons().values(), *recorded.comparisons("sweep").values()]:
        for name in found.contenders:
            sizes, rates = found.sweep(name)
            if len(sizes) > 3:
                told = EX06["predict"](sizes[:-1], rates[:-1], sizes[-1])
                assert rates[-2] <= told * (1 + 1e-9)
                assert told <= rates[-2] * sizes[-1] / sizes[-2] * (1 + 1e-9)


def test_each_bound_of_a_prediction_is_asked_for_whatever_is_drawn():
    """A straight line without one of its two bounds is refused by inputs that every check has."""
    (task,) = (each for each in EXERCISES["ex06"].tasks if each.id == "ex06.3")

    def line(batches, rates, batch, low=-np.inf, high=np.inf):
        seconds = np.divide(batches, rates)
        slope = np.clip(
            (seconds[-1] - seconds[-2]) / (batches[-1] - batches[-2]), low, high * seconds[-1] / batches[-1]
        )
        return float(batch / (seconds[-1] + slope * (batch - batches[-1])))

    def is_refused(seed, **bounds):
        return any(
            not property_.holds(given, line(**given, **bounds), task.expected(**given))
            for given in task.cases(Random(seed))
            for property_ in task.properties
        )

    for seed in SEEDS:
        assert not is_refused(seed, low=0, high=1)
        assert is_refused(seed, low=0)
        assert is_refused(seed, high=1)
        assert is_refused(seed)


def test_three_hints_each():
    for task in EXERCISES["ex06"].tasks:
        assert [hint(task.id, number).endswith(f"(hint {number} of 3)") for number in (1, 2, 3)] == [True] * 3


def test_hints_are_shown_when_they_are_asked_for(capsys):
    assert main(["hint", "ex06.2"]) == 0
    assert capsys.readouterr().out.startswith(SPLIT.hints[0])


@pytest.mark.parametrize(
    ("words", "told"),
    [(("ex99.1",), "no hints for 'ex99.1'"), (("ex06.1", 0), "give 1 to 3"), (("ex06.1", 4), "give 1 to 3")],
)
def test_a_hint_that_is_not_there(words, told):
    with pytest.raises(CourseError, match=told):
        hint(*words)
