"""Planted faults: each shows where it departs from a sound run, breaks its own law, and is told from its siblings."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path
from random import Random

import pytest

from lessonlib.checks.sandbox.child import MAX_ITEMS, decode, encode
from lessonlib.errors import CourseError
from lessonlib.incidents import FAULTS, Incident, causes, incident, siblings, sound_rides, tickets
from lessonlib.incidents.laws import LAWS, broken
from lessonlib.incidents.load import LOADS
from lessonlib.incidents.pool import DESKS, first_difference, looks_like
from lessonlib.incidents.record import plain_record
from lessonlib.incidents.run import run
from lessonlib.incidents.tickets import CHOICES, drawn_for, ticket
from lessonlib.metrics import computed_runs
from lessonlib.scheduling.plan import StepPlan
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.simulation.simulator import Simulator
from lessonlib.trace import Trace
from lessonlib.viz.ride import Ride

EVERY_FAULT = pytest.mark.parametrize("cause", FAULTS)
EVERY_LOAD = pytest.mark.parametrize("load", LOADS, ids=lambda load: load.__name__)


@cache
def found_in(cause: str, seed: int) -> Incident:
    """An incident, made once for all tests that only read it."""
    return incident(FAULTS[cause], Random(seed))


# ----- sound runs -----


@EVERY_LOAD
@pytest.mark.parametrize("seeds", [range(12), pytest.param(range(12, 600), marks=pytest.mark.prove)])
def test_a_sound_run_keeps_every_law(load, seeds: range) -> None:
    for seed in seeds:
        drawn = load(Random(seed))
        assert broken(plain_record(run(drawn), drawn)) == {}, seed


@EVERY_LOAD
def test_the_course_itself_keeps_the_laws_in_a_trace_with_runs_of_decodes(load) -> None:
    """A record made of a Trace as the simulator writes it is that of a Trace with a row for every token."""
    drawn = load(Random(3))
    if drawn.gives_up:
        return
    plain = Simulator(
        drawn.workload, drawn.scheduler(), drawn.cost_model, drawn.prompts, salts=drawn.tenants
    ).run()
    assert len(plain.events["step"]) < len(run(drawn).events["step"])
    assert plain_record(plain, drawn) == plain_record(run(drawn), drawn)


class Watched(Scheduler):
    """Keeps, of each step, what the scheduler itself knows of those on board, and the queue."""

    def schedule(self) -> StepPlan:
        known = {request.order: request.num_tokens for request in self.requests.values()}
        plan = super().schedule()
        self.seen.append(
            {
                "known": {each.order: known[each.order] for each in self.running},
                "stored": {each.order: each.num_computed_tokens for each in self.running},
                "held": {each.order: len(each.block_table) for each in self.running},
                "on_board": {each.order: each.slot for each in self.running},
                "queue": sorted(each.order for each in self.waiting.in_order()),
                "free_blocks": self.kv_cache.num_free,
            }
        )
        return plan


@EVERY_LOAD
def test_a_record_says_what_the_scheduler_knew(load) -> None:
    for seed in range(5):
        drawn = load(Random(seed))
        watched = type("OfOneRun", (Watched,), {"seen": []})
        record = plain_record(run(drawn, drawn.scheduler(watched)), drawn)
        for step, seen in zip(record["steps"], watched.seen, strict=True):
            assert {name: step[name] for name in seen} == seen


def test_a_record_agrees_with_the_traces_own_metrics() -> None:
    for load in LOADS:
        drawn = load(Random(7))
        trace = run(drawn)
        steps = plain_record(trace, drawn)["steps"]
        assert [len(step["on_board"]) for step in steps] == trace.steps["running"].tolist()
        assert [len(step["queue"]) for step in steps] == trace.steps["waiting"].tolist()
        assert sum(len(step["decode"]) for step in steps) == trace.tokens
        ends = {
            (each.request, each.step): each.stored + each.tokens
            for each in computed_runs(trace)
            if each.is_prefill
        }
        assert ends == {
            (each, at): step["stored"][each] for at, step in enumerate(steps) for each in step["prefill"]
        }


# ----- broken ones -----


def test_there_are_faults_of_every_kind() -> None:
    assert len(FAULTS) >= 40
    assert {fault.family for fault in FAULTS.values()} == LAWS.keys()
    assert sorted(family for families in DESKS.values() for family in families) == sorted(LAWS)
    for law in LAWS:
        assert len(siblings(law)) >= 3, law


@EVERY_FAULT
def test_a_fault_shows_where_it_departs_from_a_sound_run(cause: str) -> None:
    """The first step and the number are found by comparing, and by the law alone; no other group of laws is broken."""
    fault = FAULTS[cause]
    seen = set()
    for seed in range(3):
        found = found_in(cause, seed)
        sound = plain_record(found.sound, found.load)
        assert broken(sound) == {}
        assert sound["steps"][: found.step] == found.record["steps"][: found.step]
        assert first_difference(sound, found.record) == found.step
        assert fault.law.broken_in(found.record) == (found.step, found.number)
        assert found.number > 0
        assert found.trace.header == found.sound.header  # which gives nothing away
        seen.add((found.step, found.number))
    assert len(seen) > 1


@pytest.mark.prove
def test_two_causes_are_not_the_same_fault() -> None:
    """Some load tells each cause from all that break the same law."""
    for law in LAWS:
        for fault in siblings(law):
            others = [other for other in siblings(law) if other is not fault]
            found = (incident(fault, Random(seed)) for seed in range(20))
            assert any(not any(looks_like(each, other) for other in others) for each in found), fault.cause


PLAUSIBLE = {
    "everyone who did not give up got an answer": lambda record: (
        {each for step in record["steps"] for each in (*step["finished"], *step["gave_up"])}
        == set(range(len(record["requests"])))
    ),
    "most slots are in use": lambda record: (
        2 * sum(len(step["on_board"]) for step in record["steps"]) >= record["slots"] * len(record["steps"])
    ),
    "nobody reads what another wrote": lambda record: not any(step["overheard"] for step in record["steps"]),
    "never more blocks than there are": lambda record: all(
        sum(step["held"].values()) <= record["blocks"] for step in record["steps"]
    ),
    "nobody gets more tokens than asked for": lambda record: all(
        sum(each in step["decode"] for step in record["steps"]) <= request["limit"]
        for each, request in enumerate(record["requests"])
    ),
}


@EVERY_FAULT
def test_an_incident_is_missed_by_a_guard_that_one_might_well_write(cause: str) -> None:
    found = found_in(cause, 1)
    assert any(guard(found.record) for guard in PLAUSIBLE.values())


@EVERY_FAULT
def test_an_incident_plays_and_travels(cause: str) -> None:
    found = found_in(cause, 2)
    again = Trace.from_dict(json.loads(json.dumps(found.trace.to_dict())))
    assert Ride.from_trace(again, "").num_steps == len(found.record["steps"])
    assert plain_record(again, found.load) == found.record
    assert decode(json.loads(json.dumps(encode(found.record)))) == found.record
    assert 4 * items(found.record) < 1.5 * MAX_ITEMS  # four rides travel as one argument; others are shorter


def items(value: object) -> int:
    if isinstance(value, dict):
        return 1 + sum(1 + items(key) + items(each) for key, each in value.items())
    return 1 + sum(map(items, value)) if isinstance(value, list) else 1


def test_a_clock_that_slips_gives_times_that_cannot_be() -> None:
    trace = found_in("a wait is counted from the first token", 0).trace
    assert trace.first_token_time().min() <= 0
    trace = found_in("the clock is set back once", 0).trace
    ends = trace.steps["start"] + trace.steps["duration"]
    assert (trace.steps["start"][1:] < ends[:-1] - 1e-9).any()


def test_a_double_free_is_overheard() -> None:
    found = found_in("blocks are freed twice", 0)
    assert any(step["overheard"] for step in found.record["steps"])


# ----- tickets -----


def test_a_name_draws_the_same_three_tickets_each_time() -> None:
    first, again = tickets("Ada Lovelace"), tickets("  ada   LOVELACE ")
    assert [each.desk for each in first] == list(DESKS)
    for one, other in zip(first, again, strict=True):
        assert (one.complaint, one.choices, one.ride) == (other.complaint, other.choices, other.ride)


def test_there_are_more_rides_to_try_an_answer_on() -> None:
    first, others = tickets("ada"), tickets("ada", 1)
    assert all(one.ride != other.ride for one, other in zip(first, others, strict=True))
    assert [broken(each.ride).keys() for each in first] == [broken(each.ride).keys() for each in others]
    assert all(not broken(ride) for ride in sound_rides())
    assert sound_rides() == sound_rides(0) != sound_rides(1)


def test_names_share_few_tickets_and_every_fault_is_drawn() -> None:
    drawn = [drawn_for(f"student {number}") for number in range(600)]
    assert {fault.cause for each in drawn for fault in each.values()} == FAULTS.keys()
    sets = Counter(tuple(fault.cause for fault in each.values()) for each in drawn)
    assert sets.most_common(1)[0][1] <= 8
    for each in drawn:
        for desk, fault in each.items():
            assert fault.family in DESKS[desk]


def test_the_right_choice_is_in_no_place_of_its_own() -> None:
    """Neither by position, nor by the law that most choices share, nor by length or alphabet."""
    fault, found = (
        FAULTS["a slot is never filled again"],
        incident(FAULTS["a slot is never filled again"], Random(0)),
    )
    places, ranks, sizes = Counter(), Counter(), Counter()
    for seed in range(600):
        choices = ticket("queue", found, Random(seed)).choices
        assert len(set(choices)) == len(choices) == CHOICES
        assert fault.cause in choices
        assert sum(FAULTS[each].family == "seats" for each in choices) >= 3
        places[choices.index(fault.cause)] += 1
        ranks[sorted(choices).index(fault.cause)] += 1
        sizes[sorted(choices, key=len).index(fault.cause)] += 1
    assert places.keys() == set(range(CHOICES))
    assert max(places.values()) < 2 * 600 / CHOICES
    assert all(desk_of(each) == "queue" for each in choices)


def desk_of(cause: str) -> str:
    return next(desk for desk, families in DESKS.items() if FAULTS[cause].family in families)


def test_a_complaint_gives_no_cause_away() -> None:
    for fault in FAULTS.values():
        assert sum(other.complaint == fault.complaint for other in FAULTS.values()) >= 2, fault.cause


def test_a_ticket_is_told_in_a_terminal_and_in_a_notebook() -> None:
    first = tickets("ada")[0]
    for cause in first.choices:
        assert cause in str(first)
        assert cause.replace("'", "&#x27;") in first._repr_html_()
    assert first.complaint in str(first)
    assert all(cause in repr(causes()) for cause in FAULTS)


@pytest.mark.parametrize("who", ["", "  ", "x" * 101])
def test_what_is_no_name_is_told_in_one_line(who: str) -> None:
    with pytest.raises(CourseError, match="is no name to draw for: give your own"):
        tickets(who)


def test_the_readme_says_how_many_faults_there_are() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"drawn for a student's name from {len(FAULTS)} planted faults" in readme
