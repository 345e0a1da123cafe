"""The pictures without a browser: packing, still pictures, the widget's traits, the controls, the plots."""

from __future__ import annotations

import base64
import struct

import numpy as np
import pytest

from lessonlib.errors import CourseError
from lessonlib.trace import Header, Kind, Trace, TraceBuilder
from lessonlib.viz import Elevator, explorer, plots
from lessonlib.viz.company import step_cost
from lessonlib.viz.ride import MOST_STAYS, Phase, Ride, named_traces

PNG = b"\x89PNG\r\n\x1a\n"


def fifo(lengths: list[int], slots: int, policy: str = "continuous") -> Trace:
    """A small ride: everyone waits at step 0 and boards in order."""
    builder = TraceBuilder(Header(slots=slots, policy=policy), [3] * len(lengths), [0.0] * len(lengths))
    for request in range(len(lengths)):
        builder.add(Kind.ARRIVE, request, step=0)
    waiting, left, seats = list(range(len(lengths))), list(lengths), [-1] * slots
    while waiting or max(seats) >= 0:
        if policy == "continuous" or max(seats) < 0:
            for slot in range(slots):
                if seats[slot] < 0 and waiting:
                    seats[slot] = waiting.pop(0)
                    builder.add(Kind.BOARD, seats[slot], slot)
        running = sum(seat >= 0 for seat in seats)
        for slot, request in enumerate(seats):
            if request >= 0:
                builder.add(Kind.DECODE, request, slot, tokens=1)
                left[request] -= 1
                if not left[request]:
                    builder.add(Kind.FINISH, request, slot)
                    seats[slot] = -1
        builder.end_step(waiting=len(waiting), running=running)
    return builder.build()


def preempted() -> Trace:
    """Two riders, one slot: rider 0 reads, writes, is put off for rider 1, reads again and gets home."""
    builder = TraceBuilder(
        Header(slots=1, policy="priority"), [4, 0], [0.0, 0.0], labels=["<b>bold</b>", "plain"]
    )
    script = [
        [(Kind.ARRIVE, 0, -1, 0), (Kind.BOARD, 0, 0, 0), (Kind.PREFILL, 0, 0, 2)],
        [(Kind.PREFILL, 0, 0, 2), (Kind.DECODE, 0, 0, 1)],
        [(Kind.DECODE, 0, 0, 1), (Kind.ARRIVE, 1, -1, 0)],
        [(Kind.PREEMPT, 0, -1, 0), (Kind.BOARD, 1, 0, 0), (Kind.DECODE, 1, 0, 1), (Kind.FINISH, 1, 0, 0)],
        [(Kind.BOARD, 0, 0, 0)],
        [(Kind.PREFILL, 0, 0, 6), (Kind.DECODE, 0, 0, 1)],
        [(Kind.DECODE, 0, 0, 1), (Kind.FINISH, 0, 0, 0)],
    ]
    for step, events in enumerate(script):
        for kind, request, slot, tokens in events:
            builder.add(kind, request, slot, tokens)
        builder.end_step(waiting=int(step in (2, 3)), running=1)
    return builder.build()


def empty() -> Trace:
    return TraceBuilder(Header(slots=4, policy="empty"), [], []).build()


# ----- packing -----


def seats_by_hand(trace: Trace, step: int) -> list[int]:
    """Request in each slot or -1, straight from the events."""
    seats = [-1] * trace.header.slots
    boarded: dict[int, int] = {}
    for at, request, slot, kind in zip(
        *(trace.events[c] for c in ("step", "request", "slot", "kind")), strict=True
    ):
        if kind == Kind.BOARD and at <= step:
            boarded[request] = slot
        elif (kind == Kind.PREEMPT and at <= step) or (kind in (Kind.FINISH, Kind.ABORT) and at < step):
            boarded.pop(request, None)
    for request, slot in boarded.items():
        seats[slot] = request
    return seats


@pytest.mark.parametrize("policy", ["static", "continuous"])
def test_the_wire_gives_every_frame_that_the_events_say(policy: str) -> None:
    trace = fifo([3, 9, 2, 5, 4, 8, 1, 6, 7], 4, policy)
    ride = Ride.from_wire(Ride.from_trace(trace, policy).to_wire())
    for step in range(trace.num_steps):
        frame = ride.frame(step)
        assert [-1 if rider is None else rider.request for rider in frame.riders] == seats_by_hand(
            trace, step
        )
        assert len(frame.waiting) == trace.steps["waiting"][step] == ride.steps[0][step]
        given = sum(rider.phase in (Phase.DECODE, Phase.FINISHED) for rider in frame.riders if rider)
        assert given == trace.steps["running"][step]
    assert ride.frame(trace.num_steps).riders == (None,) * 4


def test_progress_is_the_tokens_given_by_the_end_of_the_step() -> None:
    ride = Ride.from_trace(fifo([3, 5], 1), "one")
    riders = [ride.frame(step).riders[0] for step in range(8)]
    assert [rider.done for rider in riders if rider] == [1, 2, 3, 1, 2, 3, 4, 5]
    assert [rider.goal for rider in riders if rider] == [3] * 3 + [5] * 5
    assert [step for step, rider in enumerate(riders) if rider and rider.phase is Phase.FINISHED] == [2, 7]


def test_a_preempted_rider_waits_again_and_keeps_its_tokens() -> None:
    ride = Ride.from_trace(preempted(), "priority")
    frames = [ride.frame(step) for step in range(ride.num_steps)]
    phases = [frame.riders[0].phase.value for frame in frames if frame.riders[0]]
    assert phases == ["prefill", "prefill", "decode", "finished", "stalled", "prefill", "finished"]
    assert [frame.riders[0].done for frame in frames if frame.riders[0]] == [0, 1, 2, 1, 2, 3, 4]
    assert [frame.waiting for frame in frames] == [(), (), (1,), (0,), (), (), ()]


def test_seconds_travel_as_times_and_plain_steps_do_not() -> None:
    steps = fifo([2, 2], 1)
    assert Ride.from_trace(steps, "x").to_wire()["times"] == b""
    builder = TraceBuilder(Header(slots=1, clock="seconds"), [0], [0.0])
    builder.add(Kind.BOARD, 0, 0)
    builder.add(Kind.DECODE, 0, 0, tokens=1)
    builder.end_step(waiting=0, running=1, start=5.0, duration=0.25)
    ride = Ride.from_wire(Ride.from_trace(builder.build(), "y").to_wire())
    assert ride.times.tolist() == [0.0, 0.25]


def test_names_come_from_policies_and_stay_apart() -> None:
    trace = fifo([1], 1)
    assert list(named_traces([trace, trace, fifo([1], 1, "static")])) == [
        "continuous",
        "continuous (2)",
        "static",
    ]


@pytest.mark.parametrize("wrong", [[], {}, 3, [1, 2], {"a": None}])
def test_what_is_no_trace_is_refused_in_one_line(wrong: object) -> None:
    with pytest.raises(CourseError, match="give a Trace"):
        Elevator(wrong)  # type: ignore[arg-type]


def test_too_many_boardings_are_refused() -> None:
    count = MOST_STAYS + 1
    rows = np.arange(count)
    events = dict.fromkeys(("step", "request", "tokens", "blocks"), np.zeros(count, np.int64))
    events |= {"request": rows, "slot": rows * 0, "kind": np.full(count, int(Kind.BOARD))}
    trace = fifo([1], 1)
    many = Trace(trace.header, events, trace.steps, dict.fromkeys(trace.requests, rows * 0))
    with pytest.raises(CourseError, match=r"100,001 boardings.*ride fewer"):
        Elevator(many)


# ----- the widget -----


def test_a_new_ride_travels_as_one_message_by_trait() -> None:
    elevator = Elevator(fifo([3, 4, 5], 2), step=2)
    assert elevator.step == 2
    sent: list[set] = []
    elevator.send_state = lambda key=None: sent.append(set(key))  # type: ignore[method-assign]
    elevator.traces = fifo([9, 9], 2)
    assert sent == [{"step", "_rides"}]
    assert elevator.step == 0
    assert elevator._rides[0]["num_steps"] == 9


def test_a_wrong_ride_leaves_the_last_good_one() -> None:
    elevator = Elevator(fifo([3, 4, 5], 2))
    with pytest.raises(CourseError):
        elevator.traces = "no trace"
    assert list(elevator.traces) == ["continuous"]
    assert "3 requests in 2 slots" in repr(elevator)


def test_a_long_ride_is_sent_in_under_a_megabyte() -> None:
    rng = np.random.default_rng(0)
    ride = Ride.from_trace(fifo(rng.integers(10, 190, 500).tolist(), 32), "big")
    size = sum(len(value) for value in ride.to_wire().values() if isinstance(value, bytes))
    assert size < 100 * 500


RIDES = {
    "small": lambda: {"static": fifo([3, 9, 2, 5], 2, "static"), "continuous": fifo([3, 9, 2, 5], 2)},
    "preempted": preempted,
    "empty": empty,
    "one step": lambda: fifo([1], 1),
    "bars": lambda: fifo([2, 3] * 30, 40),
    "cells": lambda: fifo([2, 3] * 600, 1000),
    "gauge": lambda: fifo([2], 5000),
}


@pytest.mark.parametrize("name", RIDES)
def test_every_ride_has_words_and_a_stable_picture(name: str) -> None:
    bundles = [Elevator(RIDES[name](), "A ride")._repr_mimebundle_() for _ in range(2)]
    (data, metadata), (again, _) = bundles
    assert data["image/png"] == again["image/png"]
    assert data["text/plain"] == again["text/plain"]
    assert data["text/plain"].startswith("Elevator\n")
    png = base64.b64decode(data["image/png"])
    assert png.startswith(PNG)
    assert b"Software" not in png
    width, _ = struct.unpack(">II", png[16:24])
    assert width == 2 * metadata["image/png"]["width"] == 1200
    assert "application/vnd.jupyter.widget-view+json" in data


def test_the_words_say_what_happened() -> None:
    assert repr(Elevator(RIDES["small"]())) == (
        "Elevator\n"
        "  static: 4 requests in 2 slots, 14 steps, 19 tokens, 67.9% utilization\n"
        "  continuous: 4 requests in 2 slots, 10 steps, 19 tokens, 95.0% utilization"
    )
    assert repr(Elevator(empty())) == "Elevator\n  empty: no steps, nobody rides"


def test_the_page_holds_everything_and_no_markup_of_a_label(tmp_path) -> None:
    trace = preempted()
    hostile = Trace(trace.header, trace.events, trace.steps, trace.requests, ["</script><img src=x>", "b"])
    page = Elevator(hostile, "<i>title</i>").to_html(tmp_path / "ride.html").read_text()
    assert "<img" not in page
    assert "<i>" not in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page


def test_words_travel_with_the_ride_and_are_one_for_each_request() -> None:
    prompts, texts = ["a?", "b?", "c?", "d?"], ["x " * 2_000, "y", "z", ""]
    wire = Elevator(fifo([3, 9, 2, 5], 2), prompts=prompts, texts=texts)._rides[0]
    assert wire["prompts"] == prompts
    assert len(wire["texts"][0]) == 2_000
    back = Ride.from_wire(wire)
    assert (back.prompts, back.texts[1:]) == (tuple(prompts), ("y", "z", ""))
    with pytest.raises(CourseError, match="3 texts for the 4 requests of 'continuous': give one for each"):
        Elevator(fifo([3, 9, 2, 5], 2), texts=["x", "y", "z"])
    assert Elevator(preempted())._rides[0]["prompts"] == ["<b>bold</b>", "plain"], "the labels, as before"


# ----- controls -----


def test_controls_hand_new_rides_to_the_same_elevator() -> None:
    def simulate(slots: int, policy: str) -> Trace:
        if slots < 1:
            raise CourseError(f"{slots} slots: the elevator needs at least 1")
        return fifo([3, 9, 2, 5], slots, policy)

    panel = explorer(simulate, "Try", slots=(0, 4), policy=["static", "continuous"])
    elevator = panel.elevator
    assert panel.values == {"slots": 2, "policy": "static"}
    panel.controls["policy"].value = "continuous"
    assert list(elevator.traces) == ["continuous"]
    panel.controls["slots"].value = 0
    assert panel.message.value == "0 slots: the elevator needs at least 1"
    assert list(elevator.traces) == ["continuous"]
    panel.controls["slots"].value = 3
    assert panel.message.value == ""
    assert elevator._rides[0]["slots"] == 3
    assert panel.elevator is elevator
    assert {type(child).__name__ for child in panel.children} == {"HBox", "Label", "Elevator"}


def test_controls_leave_words_and_a_picture_too() -> None:
    data, _ = explorer(lambda slots: fifo([1, 2], slots), slots=[1, 2])._repr_mimebundle_()
    assert data["text/plain"].endswith("with slots=1")
    assert base64.b64decode(data["image/png"]).startswith(PNG)


def test_a_control_that_is_none_is_refused() -> None:
    with pytest.raises(CourseError, match="is no control"):
        explorer(lambda **_: fifo([1], 1), slots=object())


# ----- plots -----


def drawn() -> dict[str, plots.style.Picture]:
    both = RIDES["small"]()
    rates = {"uniform": {"static": 5.0, "continuous": 9.0}, "haiku": {"static": 2.0, "continuous": 9.5}}
    share = np.linspace(0.3, 1, 20)
    return {
        "gantt": plots.gantt(both, "A finding", source="a source"),
        "many": plots.gantt(RIDES["cells"](), "A finding"),
        "prefill": plots.gantt(preempted(), "A finding"),
        "utilization": plots.utilization_over_time(both, "A finding"),
        "nobody": plots.utilization_over_time(empty(), "A finding"),
        "bars": plots.throughput_bars(rates, 10.0, "A finding"),
        "lengths": plots.length_histogram(np.array([1, 2, 2, 9]), "A finding", marks={"mean": 3.5}),
        "two lengths": plots.length_histogram({"a": np.array([1, 2]), "b": np.array([3])}, "A finding"),
        "cost": plots.cost_curve(
            share, 4 / share, {"static": (0.5, 8.0), "continuous": (0.99, 4.04)}, "A finding"
        ),
        "company": step_cost(
            [1, 2], {"weights": np.ones(2), "K/V": np.array([1, 2])}, "A finding", measured={2: 4}
        ),
        "tail": plots.tail_latency({"static": np.arange(1, 99), "continuous": np.arange(1, 50)}, "A finding"),
    }


def test_every_plot_states_its_finding_and_draws_the_same_twice() -> None:
    for name, figure in drawn().items():
        assert figure.get_suptitle() == "A finding", name
        assert figure.alt, name
        data, _ = figure._repr_mimebundle_()
        assert base64.b64decode(data["image/png"]) == figure.png(), name
        assert "A finding" not in data["text/plain"], "a finding may vary, stored words may not"


def test_tokens_per_step_add_up() -> None:
    trace = preempted()
    per_step = plots.tokens_per_step(trace)
    assert per_step.tolist() == [0, 1, 1, 1, 0, 1, 1]
    assert per_step.sum() == trace.tokens


def test_plots_refuse_nothing_to_draw() -> None:
    with pytest.raises(CourseError, match="same policies"):
        plots.throughput_bars({"a": {"static": 1.0}, "b": {}}, 1.0, "")
    with pytest.raises(CourseError, match="at least one time"):
        plots.tail_latency({"a": np.array([])}, "")


def test_a_picture_leaves_the_notebooks_own_settings_alone() -> None:
    import matplotlib as mpl

    before = mpl.rcParams["font.size"]
    plots.gantt(fifo([1], 1), "A finding")
    assert mpl.rcParams["font.size"] == before
