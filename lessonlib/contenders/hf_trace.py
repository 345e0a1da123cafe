"""From the times of static batches to a `Trace`: a batch boards together, and its slots wait for the longest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lessonlib.contenders.job import Row
from lessonlib.trace import Header, Kind, Trace, TraceBuilder


@dataclass(frozen=True)
class BatchTimes:
    """One batch's clock, in seconds from the row's start.

    Attributes:
        requests: places in the row.
        start: when `generate` was called.
        ends: when each step's tokens were there.
    """

    requests: range
    start: float
    ends: Sequence[float]


def static_trace(row: Row, header: Header, batches: Sequence[BatchTimes]) -> Trace:
    """The ride of a row's batches, one after the other. A prompt is read in its batch's first step."""
    trace = TraceBuilder(header, map(len, row.prompts), [0.0] * len(row))
    for request in range(len(row)):
        trace.add(Kind.ARRIVE, request)
    for batch in batches:
        _board(trace, row, batch.requests)
        began = batch.start
        for done, end in enumerate(batch.ends, 1):
            running = _step(trace, row, batch.requests, done)
            trace.end_step(len(row) - batch.requests.stop, running, 0, began, end - began)
            began = end
    return trace.build()


def _board(trace: TraceBuilder, row: Row, requests: range) -> None:
    for slot, request in enumerate(requests):
        trace.add(Kind.BOARD, request, slot)
        trace.add(Kind.PREFILL, request, slot, len(row.prompts[request]))


def _step(trace: TraceBuilder, row: Row, requests: range, done: int) -> int:
    """A token for everyone who is owed one, the `done`th of the batch; how many those are."""
    owed = [(slot, request) for slot, request in enumerate(requests) if row.max_tokens[request] >= done]
    for slot, request in owed:
        trace.add(Kind.DECODE, request, slot, 1)
        if row.max_tokens[request] == done:
            trace.add(Kind.FINISH, request, slot)
    return len(owed)
