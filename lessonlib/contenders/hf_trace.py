"""A `Trace` from the times of static batches: a batch is admitted together, and its slots wait for the longest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lessonlib.contenders.job import Row
from lessonlib.trace import Header, Kind, Trace, TraceBuilder


@dataclass(frozen=True)
class BatchTimes:
    """The times of one batch, in seconds from the row's start.

    Attributes:
        requests: indices in the row.
        start: when `generate` was called.
        ends: the end of each step.
    """

    requests: range
    start: float
    ends: Sequence[float]


def static_trace(row: Row, header: Header, batches: Sequence[BatchTimes]) -> Trace:
    """The Trace of a row's batches, one after the other. A prompt is computed in its batch's first step."""
    builder = TraceBuilder(header, map(len, row.prompts), [0.0] * len(row))
    for request in range(len(row)):
        builder.add(Kind.ARRIVE, request)
    for batch in batches:
        _admit(builder, row, batch.requests)
        began = batch.start
        for step, end in enumerate(batch.ends, 1):
            running = _decode(builder, row, batch.requests, step)
            builder.end_step(len(row) - batch.requests.stop, running, 0, began, end - began)
            began = end
    return builder.build()


def _admit(builder: TraceBuilder, row: Row, requests: range) -> None:
    for slot, request in enumerate(requests):
        builder.add(Kind.BOARD, request, slot)
        builder.add(Kind.PREFILL, request, slot, len(row.prompts[request]))


def _decode(builder: TraceBuilder, row: Row, requests: range, step: int) -> int:
    """Record the batch's step number `step`, from 1. Returns how many requests still need its token."""
    running = [(slot, request) for slot, request in enumerate(requests) if row.max_tokens[request] >= step]
    for slot, request in running:
        builder.add(Kind.DECODE, request, slot, 1)
        if row.max_tokens[request] == step:
            builder.add(Kind.FINISH, request, slot)
    return len(running)
