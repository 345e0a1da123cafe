"""Memory in pictures: what the plots draw and refuse, and every count of the memory floor against the Trace."""

from __future__ import annotations

import base64
from collections import Counter
from typing import Any

import numpy as np
import pytest
from test_viz import empty, fifo, preempted

from lessonlib.errors import CourseError
from lessonlib.scheduling.policies import POLICIES, make_policy
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.simulation.compare import compare_policies, policy_table
from lessonlib.simulation.simulator import Simulator, simulate
from lessonlib.trace import Kind, Trace
from lessonlib.viz import Elevator, MemoryFilm, memory
from lessonlib.viz.ride import Ride
from lessonlib.workload import Workload

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


# ----- the memory floor -----


def workload(count: int = 20, seed: int = 3, prefix: int = 0) -> tuple[Workload, list[list[int]]]:
    """Requests and their prompts, all beginning with the same `prefix` tokens."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 90, count)
    prompts = [[*range(prefix), *rng.integers(1000, 9000, length).tolist()] for length in lengths]
    return Workload.from_lengths(rng.integers(1, 70, count), lengths + prefix), prompts


def crowded(**options: Any) -> Trace:
    """A ride on which memory is short and riders are put off."""
    return simulate(workload()[0], "vllm", 8, 24, 16, 64, **options)


def sharing(policy: str = "vllm") -> Trace:
    """A ride whose prompts all begin alike."""
    riders, prompts = workload(prefix=40)
    return simulate(riders, policy, 8, 30, 16, 64, prefix_caching=True, prompts=prompts, hash_seed=1)


class Watched(Simulator):
    """A simulator that writes down, for each step, the tables, free blocks and blocks held more than once."""

    def step(self) -> None:
        plan = self.scheduler.schedule()
        tables = {request.order: list(request.block_table) for request in self.scheduler.running}
        owners = Counter(block for table in tables.values() for block in table)
        self.seen.append(({order: len(table) for order, table in tables.items()}, owners))
        tokens = dict.fromkeys(plan.sampled_ids, 0)
        self.scheduler.update(plan, tokens, start=self.now, duration=1.0)
        self.now += 1.0


def watched(policy: str, blocks: int, prefix: int = 0) -> tuple[Trace, list[Any]]:
    riders, prompts = workload(prefix=prefix)
    scheduler = Scheduler(
        8, blocks, 16, 64, make_policy(policy), max_model_len=300, prefix_caching=prefix > 0, hash_seed=1
    )
    driver = Watched(riders, scheduler, prompts=prompts if prefix else None)
    driver.seen = []
    return driver.run(), driver.seen


def test_a_table_of_policies_is_html_in_a_notebook_and_text_elsewhere():
    rows = compare_policies(Workload.from_lengths([5, 9, 3], [4, 8, 2]), ["vllm", "static"], slots=2)
    table = policy_table([{**row, "policy": f"<{row['policy']}>"} for row in rows])
    assert '<td style="text-align: left; white-space: nowrap">&lt;vllm&gt;</td>' in table._repr_html_()
    assert repr(table).splitlines()[1].startswith("<vllm>")
    assert table._repr_html_().count("<tr>") == 3


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("blocks", "prefix"), [(24, 0), (30, 40)])
def test_every_count_of_the_floor_is_the_schedulers(policy: str, blocks: int, prefix: int) -> None:
    trace, seen = watched(policy, blocks, prefix)
    ride = Ride.from_wire(Ride.from_trace(trace, policy).to_wire())
    assert ride.capacity == blocks - 1
    for step, (tables, owners) in enumerate(seen):
        frame, floor = ride.frame(step), ride.memory(step)
        riders = [-1 if rider is None else rider.request for rider in frame.riders]
        assert floor.tables == tuple(tables.get(request, 0) for request in riders), step
        assert floor.free == trace.steps["free_blocks"][step]
        assert floor.held == len(owners) == ride.capacity - floor.free
        assert floor.other == 0
        assert floor.saved == sum(owners.values()) - len(owners)
        assert floor.shared == sum(count > 1 for count in owners.values())
        assert all(0 <= own <= table for own, table in zip(floor.own, floor.tables, strict=True))
    assert ride.memory(trace.num_steps).free == ride.capacity


def test_two_prefixes_at_once_are_never_more_than_sharing_saves() -> None:
    rng = np.random.default_rng(0)
    prompts = [
        [*range(9 * (r % 2), 9 * (r % 2) + 40), *rng.integers(1000, 9000, 9).tolist()] for r in range(20)
    ]
    riders = Workload.from_lengths(rng.integers(1, 70, 20), np.full(20, 49))
    trace = simulate(riders, "vllm", 8, 40, 16, 64, prefix_caching=True, prompts=prompts, hash_seed=1)
    ride = Ride.from_trace(trace, "tenants")
    floors = [ride.memory(step) for step in range(trace.num_steps)]
    assert max(floor.shared for floor in floors) > 0
    for floor, free in zip(floors, trace.steps["free_blocks"], strict=True):
        assert floor.shared <= floor.saved
        assert floor.shared + sum(floor.own) == floor.held == ride.capacity - free


def test_those_put_off_lose_what_they_held() -> None:
    trace, seen = watched("vllm", 24)
    off = trace.rows(Kind.PREEMPT)
    assert len(off["step"]) > 3
    ride = Ride.from_trace(trace, "vllm")
    for step in np.unique(off["step"]):
        lost = dict(ride.memory(int(step)).lost)
        # A rider may be put off in the very step in which it grew: what it lost is what it last had.
        assert lost == {request: seen[step - 1][0][request] for request in lost}
        assert set(lost) == set(off["request"][off["step"] == step].tolist())


MEMORY_RIDES = {
    "memory": crowded,
    "sharing": lambda: {"shared": sharing(), "alone": crowded()},
    "many blocks": lambda: simulate(workload(60, 1)[0], "vllm", 16, 301, 16, 256),
    "a bar of blocks": lambda: simulate(workload(300, 1)[0], "vllm", 64, 1000, 16, 256),
    "some with memory": lambda: {"paged": crowded(), "plain": fifo([3, 9, 2, 5], 2)},
}


@pytest.mark.parametrize("name", MEMORY_RIDES)
def test_key_frames_show_the_floor_and_are_stable(name: str) -> None:
    traces = MEMORY_RIDES[name]()
    data, again = (Elevator(traces, "A ride")._repr_mimebundle_()[0] for _ in range(2))
    assert data["image/png"] == again["image/png"]
    assert "blocks held" in data["text/plain"]
    assert data["text/plain"] == again["text/plain"]


def test_the_words_name_the_most_that_was_held() -> None:
    assert repr(Elevator(crowded())).endswith("; at most 23 of 23 blocks held")
    assert "block" not in repr(Elevator(fifo([3, 9], 2)))


def test_without_memory_nothing_more_travels() -> None:
    wire = Ride.from_trace(fifo([3, 9, 2], 2), "x").to_wire()
    assert wire["capacity"] == 0
    assert wire["stay_blocks"] == wire["span_blocks"] == wire["step_blocks"] == b""
    assert Ride.from_wire(wire).memory(1).held == 0


# ----- the film -----


def film(**traits: Any) -> MemoryFilm:
    used = [[1, 2, 3, 4], [5, 5], [1, 2, 3, 4]]
    return MemoryFilm(REGIONS, 20, "Holes", used=used, wants=[(2, 4, 8, "rider 3 <b>")], **traits)


def test_a_film_has_words_a_still_picture_and_a_page(tmp_path) -> None:
    data, again = (film()._repr_mimebundle_()[0] for _ in range(2))
    assert data["text/plain"] == "Memory film: 3 pieces of 20 tokens over 6 steps"
    assert data["image/png"] == again["image/png"]
    page = film().to_html(tmp_path / "film.html").read_text()
    assert "FilmPlayer" in page
    assert page.count("export default") == 1
    assert "<b>" not in page
    assert "https://" not in page


@pytest.mark.parametrize(
    ("regions", "size", "used", "message"),
    [
        ([], 20, None, "at least one region"),
        ([(0, 4, 15, 10, "out")], 20, None, "does not lie"),
        (REGIONS, 20, [[1], [2], [3]], "lasts 4 steps"),
        ([(0, 600_000, 0, 10, "long")], 20, None, "film fewer steps"),
    ],
)
def test_a_film_refuses_what_it_cannot_show(regions, size, used, message: str) -> None:
    with pytest.raises(CourseError, match=message):
        MemoryFilm(regions, size, used=used)
