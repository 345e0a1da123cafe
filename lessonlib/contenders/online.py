"""Requests that arrive while others ride: one clock and one loop for every engine with a `step`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from lessonlib.contenders.job import Ride, Row


def drive(
    row: Row,
    add: Callable[[int], object],
    step: Callable[[], Iterable[tuple[int, Sequence[int]]]],
    has_unfinished: Callable[[], bool],
    is_whole: bool,
) -> Ride:
    """Hand each request over when its time has come, and note when each token comes back.

    Args:
        add: takes a request's place in the row.
        step: gives (place, tokens) of the requests that got any.
        has_unfinished: whether anyone waits or rides.
        is_whole: `step` gives the answer so far, not only its new tokens.

    Token times count from the row's start, so that time in front of a busy engine is part of them.
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
        for place, ids in given:
            new = list(ids)[len(tokens[place]) :] if is_whole else list(ids)
            tokens[place] += new
            times[place] += [now] * len(new)
    seconds = time.perf_counter() - start
    return Ride(seconds, tokens, sum(map(len, tokens)), times)
