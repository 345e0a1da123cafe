"""The two forms of the slot scheduler, the Trace they give, and layer 1's counts."""

import json
from pathlib import Path

import needs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lessonlib import utilization as u
from lessonlib.errors import CourseError
from lessonlib.scheduling.slots import POLICIES, SlotScheduler, ride
from lessonlib.trace import Kind, Trace
from lessonlib.workload import Workload, read_trace

AZURE = Path(__file__).parents[2] / "shared" / "data" / "azure_llm_2023_conv.csv"
TWENTY = [687, 527, 433, 252, 280, 80, 106, 62, 181, 659, 537, 734, 427, 504, 778, 597, 524, 457, 469, 751]

rides = st.lists(st.tuples(st.integers(1, 9), st.floats(0, 40)), min_size=1, max_size=25)


def workload_of(pairs):
    lengths, arrivals = zip(*sorted(pairs, key=lambda pair: pair[1]), strict=True)
    return Workload.from_lengths(lengths, arrival_time=arrivals)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("fill", [False, True])
@settings(max_examples=120, deadline=None)
@given(pairs=rides, slots=st.integers(1, 6))
def test_both_forms_give_the_same_ride(policy, fill, pairs, slots):
    workload = workload_of(pairs)
    by_step = SlotScheduler(workload, slots, policy, fill).run()
    by_event = ride(workload, slots, policy, fill)
    assert by_step.same_ride(by_event)
    assert by_step.summary() == by_event.summary()


@settings(max_examples=100, deadline=None)
@given(pairs=rides, slots=st.integers(1, 6))
def test_what_every_ride_keeps(pairs, slots):
    workload = workload_of(pairs)
    trace = ride(workload, slots)
    assert np.array_equal(trace.output_tokens(), workload.output_tokens)
    assert trace.steps["running"].max() <= slots
    # Work conserving: while someone waits, no slot is idle.
    assert (trace.steps["running"][trace.steps["waiting"] > 0] == slots).all()
    assert (trace.first_token_time() >= 1).all()
    assert (trace.latency() >= workload.output_tokens).all()
    boarded = trace.rows(Kind.BOARD)["step"]
    assert (np.diff(boarded) >= 0).all()
    seats = [
        (int(s), t)
        for s, b, n in zip(trace.rows(Kind.BOARD)["slot"], boarded, workload.output_tokens, strict=True)
        for t in range(b, b + n)
    ]
    assert len(seats) == len(set(seats))


@pytest.mark.parametrize(("policy", "steps"), [("static", 2_216), ("continuous", 1_490)])
def test_twenty_riders(policy, steps):
    trace = ride(Workload.from_lengths(TWENTY), 8, policy)
    assert (trace.num_steps, trace.tokens) == (steps, 9_045)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=30), st.integers(1, 9))
def test_layer_two_counts_what_layer_one_counts(lengths, slots):
    workload = Workload.from_lengths(lengths)
    assert ride(workload, slots, "static").num_steps == u.static_steps(lengths, slots)
    assert ride(workload, slots, "continuous").num_steps == u.continuous_steps(lengths, slots)


@needs.AZURE_TRACE.unless(AZURE.exists())
@pytest.mark.parametrize(
    ("slots", "static", "continuous"), [(8, 0.4834, 0.9997), (64, 0.344, 0.994), (256, 0.271, 0.961)]
)
def test_azure_figures(slots, static, continuous):
    lengths = read_trace(AZURE).output_tokens
    assert len(lengths) == 19_366
    workload = Workload.from_lengths(lengths)
    assert ride(workload, slots, "static").utilization == pytest.approx(static, abs=5e-4)
    assert ride(workload, slots, "continuous").utilization == pytest.approx(continuous, abs=5e-4)


def test_static_fill_waits_for_a_full_car():
    workload = Workload.from_lengths([2, 2, 2], arrival_time=[0, 5, 6])
    eager, patient = ride(workload, 2, "static"), ride(workload, 2, "static", fill=True)
    assert eager.rows(Kind.BOARD)["step"].tolist() == [0, 5, 7]
    assert patient.rows(Kind.BOARD)["step"].tolist() == [5, 5, 7]


def test_trace_survives_a_file(tmp_path):
    trace = ride(workload_of([(3, 0), (5, 1.5), (2, 2)]), 2)
    for name in ("ride.json", "ride.json.gz"):
        again = Trace.load(trace.save(tmp_path / name))
        assert again.same_ride(trace)
        assert again.summary() == trace.summary()
        assert again.header == trace.header


def test_traces_that_are_none(tmp_path):
    trace = ride(Workload.from_lengths([3]), 1).to_dict()
    cases = {
        "nonsense": ("{", "is not a trace"),
        "newer": (json.dumps({**trace, "header": {**trace["header"], "schema": 99}}), "schema 99 is newer"),
        "short": (json.dumps({"header": trace["header"]}), "events"),
    }
    for name, (text, words) in cases.items():
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(CourseError, match=words):
            Trace.load(path)
    with pytest.raises(CourseError, match="no trace at"):
        Trace.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda w: ride(w, 0), "0 slots"),
        (lambda w: SlotScheduler(w, -3), "-3 slots"),
        (lambda w: ride(w, 2, "magic"), "unknown policy 'magic'"),
        (lambda w: ride(w.with_arrivals(np.zeros(2), "seconds"), 2), "arrivals are in seconds"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(CourseError, match=words):
        call(Workload.from_lengths([3, 4]))
