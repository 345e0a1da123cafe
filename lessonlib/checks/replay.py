"""A failing case as a ride: what came back and what was expected, as Traces that the elevator plays.

Exercises that decide one step have two moments, the car before and the car after. Exercises about a whole ride
have that ride.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lessonlib.simulation.slots import ride
from lessonlib.trace import Header, Kind, Trace, TraceBuilder
from lessonlib.workload import Workload

CAME_BACK, EXPECTED = "came back", "was due"
T = TypeVar("T")


@dataclass(frozen=True)
class Moment:
    """The car in one step.

    Attributes:
        seats: slot → request.
        waiting: requests that wait.
        blocks: request → K/V blocks it holds, for those who hold any.
        free: free blocks.
    """

    seats: Mapping[int, int]
    waiting: Collection[int]
    blocks: Mapping[int, int] = field(default_factory=dict)
    free: int = 0


def whole_ride(policy: str) -> Callable[[Mapping[str, Any], object, object], dict[str, Trace]]:
    """For tasks about a ride of `lengths` in so many `slots`, with `arrivals` or without: the ride that was due."""

    def rides(given: Mapping[str, Any], answer: object, expected: object) -> dict[str, Trace]:
        workload = Workload.from_lengths(given["lengths"], arrival_time=given.get("arrivals"))
        return {EXPECTED: ride(workload, given["slots"], policy)}

    return rides


def both(answer: T | None, expected: T, traced: Callable[[T], Trace]) -> dict[str, Trace]:
    """The Trace of what came back, where there is one to show, and that of what was expected."""
    states = {CAME_BACK: answer, EXPECTED: expected}
    return {name: traced(state) for name, state in states.items() if state is not None}


def before_and_after(
    slots: int,
    before: Moment,
    after: Moment,
    prompts: Mapping[int, int] | None = None,
    reads: Mapping[int, int] | None = None,
    block_size: int = 0,
) -> Trace:
    """Two steps. Whoever has left the car has finished, unless they wait again: then they were thrown out.

    Args:
        slots, block_size: of the car and its memory (0: memory is not looked at).
        before, after: the two moments.
        prompts: request → tokens of its prompt, where prompts are looked at.
        reads: request → tokens of its prompt that it reads in the second step; the others write.

    Raises `ValueError` for a car that cannot be: a slot that is not there, somebody in two seats.
    """
    for moment in (before, after):
        aboard = [*moment.seats.values(), *moment.waiting]
        if len(set(aboard)) < len(aboard) or not all(0 <= slot < slots for slot in moment.seats):
            raise ValueError("no car can look like this")
    names = sorted({*before.seats.values(), *before.waiting, *after.seats.values(), *after.waiting})
    rows = {name: row for row, name in enumerate(names)}
    pool = sum(before.blocks.values()) + before.free
    builder = TraceBuilder(
        Header(slots, maker="lesson check", block_size=block_size, num_blocks=pool + 1 if block_size else 0),
        [(prompts or {}).get(name, 0) for name in names],
        [0.0] * len(names),
        labels=[f"request {name}" for name in names],
    )
    for row in rows.values():
        builder.add(Kind.ARRIVE, row)
    for slot, name in before.seats.items():
        blocks = before.blocks.get(name, 0)
        builder.add(Kind.BOARD, rows[name], slot, blocks=blocks)
        builder.add(Kind.DECODE, rows[name], slot, 1, blocks)
    for slot, name in before.seats.items():
        if after.seats.get(slot) != name and name not in after.waiting:
            builder.add(Kind.FINISH, rows[name], slot)
    builder.end_step(len(before.waiting), len(before.seats), before.free)
    for slot, name in before.seats.items():
        if name in after.waiting:
            builder.add(Kind.PREEMPT, rows[name], slot)
    for slot, name in after.seats.items():
        blocks = after.blocks.get(name, 0)
        if before.seats.get(slot) != name:
            builder.add(Kind.BOARD, rows[name], slot, blocks=blocks)
        if reads and name in reads:
            builder.add(Kind.PREFILL, rows[name], slot, reads[name], blocks)
        else:
            builder.add(Kind.DECODE, rows[name], slot, 1, blocks)
    builder.end_step(len(after.waiting), len(after.seats), after.free)
    return builder.build()
