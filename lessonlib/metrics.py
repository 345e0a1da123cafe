"""Everything that is computed from a Trace.

What a reader asks of one Trace again and again is an attribute of it (`TraceMetrics`); the rest are functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from lessonlib.trace_schema import Header, Kind

PERCENTILES = (50, 90, 99)
NEVER = -1


class TraceMetrics:
    """The metrics that a `Trace` has as attributes."""

    header: Header
    events: Mapping[str, np.ndarray]
    steps: Mapping[str, np.ndarray]
    requests: Mapping[str, np.ndarray]

    @property
    def num_steps(self) -> int:
        """Steps from the start to the last one in which anyone was on board."""
        return len(self.steps["start"])

    @property
    def num_requests(self) -> int:
        return len(self.requests["prompt_tokens"])

    def rows(self, kind: Kind) -> dict[str, np.ndarray]:
        """The event columns of one kind, in order of request."""
        chosen = self.events["kind"] == kind
        return {name: column[chosen] for name, column in self.events.items()}

    # ----- metrics -----

    @property
    def tokens(self) -> int:
        """Output tokens given."""
        return int(self.rows(Kind.DECODE)["tokens"].sum())

    @property
    def utilization(self) -> float:
        """Output tokens given ÷ (slots × steps)."""
        return self.tokens / (self.header.slots * self.num_steps) if self.num_steps else 0.0

    @property
    def occupancy(self) -> float:
        """Slot-steps with someone on board ÷ (slots × steps): above utilization where prefill takes slot time."""
        if not self.num_steps:
            return 0.0
        return float(self.steps["running"].sum()) / (self.header.slots * self.num_steps)

    @property
    def span(self) -> float:
        """Time from the first step's start to the last step's end, in the header's clock."""
        if not self.num_steps:
            return 0.0
        return float(self.steps["start"][-1] + self.steps["duration"][-1] - self.steps["start"][0])

    def _end_of(self, step: np.ndarray) -> np.ndarray:
        return self.steps["start"][step] + self.steps["duration"][step]

    def first_token_time(self) -> np.ndarray:
        """Time to first token, one float per request that got one: arrival to the end of the step that gives it."""
        decode = self.rows(Kind.DECODE)
        request, first_row = np.unique(decode["request"], return_index=True)
        return self._end_of(decode["step"][first_row]) - self.requests["arrival_time"][request]

    def latency(self) -> np.ndarray:
        """One float per finished request: arrival to the end of its last step."""
        finish = self.rows(Kind.FINISH)
        return self._end_of(finish["step"]) - self.requests["arrival_time"][finish["request"]]

    def output_tokens(self) -> np.ndarray:
        """Output tokens given to each request, int64 `[num_requests]`."""
        decode = self.rows(Kind.DECODE)
        return np.bincount(decode["request"], decode["tokens"], self.num_requests).astype(np.int64)

    def token_times(self) -> list[list[float]]:
        """When each request's tokens were there, in the header's clock: the end of the step that gave each."""
        ends = self.steps["start"] + self.steps["duration"]
        times: list[list[float]] = [[] for _ in range(self.num_requests)]
        rows = self.rows(Kind.DECODE)
        for request, step, count in zip(rows["request"], rows["step"], rows["tokens"], strict=True):
            times[request] += ends[step : step + count].tolist()
        return times

    def steps_and_requests(self) -> tuple[list[list[float]], list[dict[str, Any]]]:
        """The ride in plain lists, as exercise 06 reads it: [start, duration] of each step, and a dict a request.

        A request has its `arrival`, its runs of `decode` as [step, tokens], and whether it has `finished`.
        """
        rows, ends = self.rows(Kind.DECODE), set(self.rows(Kind.FINISH)["request"].tolist())
        requests: list[dict[str, Any]] = [
            {"arrival": at, "decode": [], "finished": place in ends}
            for place, at in enumerate(self.requests["arrival_time"].tolist())
        ]
        for request, step, count in zip(rows["request"], rows["step"], rows["tokens"], strict=True):
            requests[request]["decode"].append([int(step), int(count)])
        steps = np.column_stack([self.steps["start"], self.steps["duration"]]).tolist()
        return steps, requests

    def time_per_output_token(self) -> np.ndarray:
        """Mean time between tokens after the first, for each finished request with two tokens or more."""
        decode, finish = self.rows(Kind.DECODE), self.rows(Kind.FINISH)
        request, first_row = np.unique(decode["request"], return_index=True)
        first = np.full(self.num_requests, np.nan)
        first[request] = self._end_of(decode["step"][first_row])
        gaps = self.output_tokens()[finish["request"]] - 1
        elapsed = self._end_of(finish["step"]) - first[finish["request"]]
        return elapsed[gaps > 0] / gaps[gaps > 0]

    def summary(self) -> dict[str, Any]:
        """The metrics as plain numbers, ready for JSON. Percentiles are NumPy's linear ones, in the clock's unit."""
        unit = self.header.clock
        return {
            "policy": self.header.policy,
            "slots": self.header.slots,
            "requests": self.num_requests,
            "steps": self.num_steps,
            "tokens": self.tokens,
            "utilization": round(self.utilization, 6),
            "occupancy": round(self.occupancy, 6),
            f"ttft_{unit}": percentiles(self.first_token_time()),
            f"latency_{unit}": percentiles(self.latency()),
        }


def percentiles(values: np.ndarray) -> dict[str, float]:
    """{"p50": …, "p90": …, "p99": …}, linear interpolation; empty for no values."""
    if not len(values):
        return {}
    return {f"p{q}": float(v) for q, v in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)}


# ----- per step -----


def prefill_tokens(trace: TraceMetrics) -> np.ndarray:
    """Prompt tokens computed in each step, int64 `[num_steps]`; those computed again count again."""
    rows = trace.rows(Kind.PREFILL)
    return np.bincount(rows["step"], rows["tokens"], trace.num_steps).astype(np.int64)


def kv_tokens(trace: TraceMetrics) -> np.ndarray:
    """K/V tokens that attention reads in each step, int64 `[num_steps]`.

    A request reads what it has stored, the tokens of the step included. A run of decode reads one more each
    step, so its share is a ramp, kept as a jump and a slope at either end.
    """
    level, slope = np.zeros(trace.num_steps + 1, np.int64), np.zeros(trace.num_steps + 1, np.int64)
    for run in computed_runs(trace):
        last = run.step + run.steps
        level[run.step] += run.stored + run.tokens
        level[last] -= run.stored + run.tokens + run.steps - 1
        slope[run.step + 1] += 1
        slope[last] -= 1
    return (np.cumsum(level) + np.cumsum(np.cumsum(slope)))[:-1]


def decode_rows(trace: TraceMetrics) -> np.ndarray:
    """Requests that decode in each step, int64 `[num_steps]`; one that reads the last of its prompt does not."""
    rows = np.zeros(trace.num_steps + 1, np.int64)
    for run in computed_runs(trace):
        if not run.is_prefill:
            rows[run.step] += 1
            rows[run.step + run.steps] -= 1
    return np.cumsum(rows)[:-1]


class Run(NamedTuple):
    """`steps` steps from `step` on, each computing `tokens` tokens of a request that had `stored` before.

    `is_prefill`: a chunk of a prompt, in one step.
    """

    request: int
    step: int
    steps: int
    stored: int
    tokens: int
    is_prefill: bool


def computed_runs(trace: TraceMetrics) -> Iterator[Run]:
    """What was computed, request after request: chunks of prompts, and runs of decode without the token that
    comes with a prompt's last chunk. Where prompts are free, a request boards with its prompt stored."""
    prompts = np.maximum(trace.requests["prompt_tokens"], 1).tolist()
    rows = (trace.events[name].tolist() for name in ("request", "step", "kind", "tokens"))
    stored = given = 0
    read_in: int | None = None  # the step that last read a part of the prompt; None: none since boarding
    for request, step, kind, tokens in zip(*rows, strict=True):
        if kind == Kind.ARRIVE:
            given = 0
        elif kind == Kind.BOARD:
            stored, read_in = tokens, None
        elif kind == Kind.PREFILL:
            yield Run(request, step, 1, stored, tokens, True)
            stored, read_in = stored + tokens, step
        elif kind == Kind.DECODE:
            if read_in is None:
                stored, read_in = prompts[request] + given - 1, NEVER
            first, last = step + (read_in == step), step + tokens
            if last > first:
                yield Run(request, first, last - first, stored, 1, False)
            stored, given = stored + last - first, given + tokens


# ----- in all -----


def metrics(trace: TraceMetrics) -> dict[str, Any]:
    """The numbers of a ride, ready for JSON: those of `Trace.summary`, memory, and times between tokens.

    Added keys: seconds and tokens_per_second (where the clock is in seconds), preemptions, recomputed_tokens,
    prefill_tokens (those computed again included), cached_tokens, kv_utilization (blocks held ÷ blocks there
    are, mean over time), peak_blocks, rejected, finished, and `itl_seconds` or `itl_steps`: percentiles of
    the time from one token of a request to its next. Memory's numbers are None where it is not modeled.
    """
    unit = trace.header.clock
    span = trace.span
    return {
        **trace.summary(),
        **(
            {"seconds": span, "tokens_per_second": trace.tokens / span if span else 0.0}
            if unit == "seconds"
            else {}
        ),
        f"itl_{unit}": inter_token_latency(trace),
        "finished": len(trace.rows(Kind.FINISH)["step"]),
        "rejected": len(trace.rows(Kind.REJECT)["step"]),
        "preemptions": len(trace.rows(Kind.PREEMPT)["step"]),
        "prefill_tokens": int(prefill_tokens(trace).sum()),
        "recomputed_tokens": recomputed_tokens(trace),
        "cached_tokens": int(trace.rows(Kind.BOARD)["tokens"].sum()),
        **_memory_metrics(trace),
    }


def _memory_metrics(trace: TraceMetrics) -> dict[str, Any]:
    if not trace.header.num_blocks or not trace.num_steps:
        return {"kv_utilization": None, "peak_blocks": None}
    capacity = trace.header.num_blocks - 1
    held = capacity - trace.steps["free_blocks"]
    time = trace.steps["duration"].sum()
    return {
        "kv_utilization": round(float((held * trace.steps["duration"]).sum() / (capacity * time)), 6),
        "peak_blocks": int(held.max()),
    }


def recomputed_tokens(trace: TraceMetrics) -> int:
    """Tokens that were computed again after a preemption. Those found in the prefix cache were not."""
    again = set(trace.rows(Kind.PREEMPT)["request"].tolist())
    furthest = dict.fromkeys(again, 0)
    total = 0
    for run in computed_runs(trace):
        if run.request in again:
            end = run.stored + run.steps * run.tokens
            total += max(0, min(end, furthest[run.request]) - run.stored)
            furthest[run.request] = max(end, furthest[run.request])
    return total


def inter_token_latency(trace: TraceMetrics) -> dict[str, float]:
    """Percentiles of the time from one token of a request to its next, over all tokens but the first ones."""
    ends = trace.steps["start"] + trace.steps["duration"]
    decode = trace.rows(Kind.DECODE)
    request, first, tokens = decode["request"], decode["step"], decode["tokens"]
    last = first + tokens - 1
    running = np.zeros(trace.num_steps + 1, np.int64)  # tokens whose request also got one in the step before
    np.add.at(running, first + 1, 1)
    np.add.at(running, last + 1, -1)
    same = request[1:] == request[:-1]
    pauses = (ends[first[1:]] - ends[last[:-1]])[same]
    gaps = np.concatenate([np.diff(ends, prepend=0.0), pauses])
    counts = np.concatenate([np.cumsum(running)[:-1], np.ones(len(pauses), np.int64)])
    return weighted_percentiles(gaps, counts)


def weighted_percentiles(values: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """As `trace.percentiles` of each value repeated `counts` times, without repeating it."""
    total = int(counts.sum())
    if not total:
        return {}
    order = np.argsort(values, kind="stable")
    values, up_to = values[order], np.cumsum(counts[order])
    answer = {}
    for q in PERCENTILES:
        place = q / 100 * (total - 1)
        low, high = (values[np.searchsorted(up_to, rank, side="right")] for rank in (int(place), ceil(place)))
        answer[f"p{q}"] = float(low + (high - low) * (place - int(place)))
    return answer
