"""Memory in pictures: what the plots draw and refuse, and every count of the memory floor against the Trace."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from test_viz import empty, fifo, preempted

from lessonlib.errors import CourseError
from lessonlib.viz import memory

SHARES = {"scheme": "paged 16", "tokens": 0.9, "reservation": 0.0, "internal": 0.04, "external": 0.06}
REGIONS = [(0, 4, 0, 10, "rider 0"), (0, 2, 10, 10, "rider 1"), (2, 6, 12, 6, "rider 2")]


def policy_row(name: str, **others: Any) -> dict[str, Any]:
    times = {"ttft_steps": {"p50": 2.0, "p99": 9.0}, "itl_steps": {"p50": 1.0, "p99": 3.0}}
    return {"policy": name, "steps": 90, "preemptions": 4, **times, **others}


# ----- plots -----


def drawn() -> dict[str, memory.style.Picture]:
    rows = [policy_row("static"), policy_row("vllm", steps=50, preemptions=0)]
    return {
        "strip": memory.memory_strip(REGIONS, 20, "A finding", mark=(3, "no room for 8")),
        "used": memory.memory_strip(REGIONS, 20, "A finding", used=[[1, 2, 3, 4], [5, 5], [1, 2, 3, 99]]),
        "function": memory.memory_strip(REGIONS, 20, "A finding", used=lambda place, steps: place + steps),
        "shares": memory.memory_shares_bars([SHARES, {**SHARES, "scheme": "max"}], "A finding"),
        "policies": memory.policies_chart(rows, "A finding", source="a source"),
        "one policy": memory.policies_chart(rows[:1], "A finding", highlight="static"),
        "few numbers": memory.policies_chart([{"policy": "a", "tokens_per_second": 3.0}], "A finding"),
        "gaps": memory.gaps(
            {"static": fifo([3, 9, 2, 5], 2, "static"), "priority": preempted()}, "A finding"
        ),
    }


def test_every_plot_states_its_finding_and_draws_the_same_twice() -> None:
    for name, figure in drawn().items():
        assert figure.get_suptitle() == "A finding", name
        assert figure.alt, name
        data, _ = figure._repr_mimebundle_()
        assert base64.b64decode(data["image/png"]) == figure.png(), name


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: memory.memory_strip([], 20, ""), "at least one region"),
        (lambda: memory.memory_strip([(0, 4, 15, 10, "out")], 20, ""), "region 'out'.*does not lie"),
        (lambda: memory.memory_strip([(4, 4, 0, 10, "never")], 20, ""), "region 'never'.*does not lie"),
        (lambda: memory.memory_strip(REGIONS, 20, "", used=[[1], [2], [3]]), "lasts 4 steps.*1 values"),
        (lambda: memory.memory_shares_bars([], ""), "scheme and shares"),
        (lambda: memory.memory_shares_bars([{"scheme": "x", "tokens": 1}], ""), "reservation, internal"),
        (lambda: memory.policies_chart([], ""), "policy's name"),
        (lambda: memory.policies_chart([{"policy": "x"}], ""), "neither throughput"),
        (lambda: memory.gaps(empty(), ""), "two tokens"),
    ],
)
def test_plots_refuse_what_they_cannot_draw(draw, message: str) -> None:
    with pytest.raises(CourseError, match=message):
        draw()


def test_gaps_are_the_waits_between_a_riders_tokens() -> None:
    found = memory.token_gaps(preempted())
    assert found["request"].tolist() == [0, 0, 0]
    assert found["gap"].tolist() == [1.0, 3.0, 1.0]
    assert found["time"].tolist() == [3.0, 6.0, 7.0]
    assert found["prefill"].tolist() == [False, True, False]
    assert found["preempted"].tolist() == [False, True, False]


def test_nobody_waits_longer_than_a_step_where_everyone_decodes() -> None:
    trace = fifo([3, 9, 2, 5], 2)
    assert np.all(memory.token_gaps(trace)["gap"] == 1)
    assert len(memory.token_gaps(trace)["gap"]) == trace.tokens - 4
