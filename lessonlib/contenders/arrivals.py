"""Rows whose requests arrive over time: one clock and one loop for every engine that has a `step`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from lessonlib.contenders.job import Measurement, Row


def run_with_arrivals(
    row: Row,
    add: Callable[[int], object],
    step: Callable[[], Iterable[tuple[int, Sequence[int]]]],
    has_unfinished: Callable[[], bool],
    is_cumulative: bool,
) -> Measurement:
    """Add each request when its time has come, and take the time of each token.

    Token times count from the row's start, so the time that a request waits for a busy engine to take it is included.

    Args:
        add: adds a request, by its index in the row.
        step: runs one step; gives (index, token ids) of each request that got any.
        has_unfinished: whether a request is running or waiting in the engine.
        is_cumulative: whether `step` gives the whole answer so far, rather than its new tokens.
    """
    arrivals, added = row.arrival_times, 0
    tokens: list[list[int]] = [[] for _ in row.prompts]
    times: list[list[float]] = [[] for _ in row.prompts]
    start = time.perf_counter()
    while added < len(row) or has_unfinished():
        now = time.perf_counter() - start
        while added < len(row) and arrivals[added] <= now:
            add(added)
            added += 1
        if not has_unfinished():
            time.sleep(max(0.0, arrivals[added] - (time.perf_counter() - start)))
            continue
        given = list(step())
        now = time.perf_counter() - start
        for index, ids in given:
            new = list(ids)[len(tokens[index]) :] if is_cumulative else list(ids)
            tokens[index] += new
            times[index] += [now] * len(new)
    seconds = time.perf_counter() - start
    return Measurement(seconds, tokens, sum(map(len, tokens)), times)
