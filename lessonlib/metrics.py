"""Everything that is computed from a Trace.

The metrics that are asked for most are attributes of a Trace (`TraceMetrics`); the others are functions.
Percentiles are NumPy's, with linear interpolation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from lessonlib.trace_schema import Header, HeldBy, Kind

PERCENTILES = (50, 90, 99)
NEVER = -1


class TraceMetrics:
    """The metrics that a `Trace` has as attributes. Times are in the unit of the header's clock."""

    header: Header
    events: Mapping[str, np.ndarray]
    steps: Mapping[str, np.ndarray]
    requests: Mapping[str, np.ndarray]

    @property
    def num_steps(self) -> int:
        """Steps from the start to the last one with a running request."""
        return len(self.steps["start"])

    @property
    def num_requests(self) -> int:
        return len(self.requests["prompt_tokens"])

    def rows(self, kind: Kind) -> dict[str, np.ndarray]:
        """The event columns of one kind, in order of request."""
        chosen = self.events["kind"] == kind
        return {name: column[chosen] for name, column in self.events.items()}

    @property
    def tokens(self) -> int:
        """Output tokens of all requests."""
        return int(self.rows(Kind.DECODE)["tokens"].sum())

    @property
    def utilization(self) -> float:
        """Output tokens ÷ (slots × steps)."""
        return self.tokens / (self.header.slots * self.num_steps) if self.num_steps else 0.0

    @property
    def slots_in_use(self) -> float:
        """Occupied slots, summed over steps ÷ (slots × steps). Above `utilization` if prefill takes steps."""
        if not self.num_steps:
            return 0.0
        return float(self.steps["running"].sum()) / (self.header.slots * self.num_steps)

    @property
    def span(self) -> float:
        """Time from the first step's start to the last step's end."""
        if not self.num_steps:
            return 0.0
        return float(self.steps["start"][-1] + self.steps["duration"][-1] - self.steps["start"][0])

    def _end_of(self, step: np.ndarray) -> np.ndarray:
        return self.steps["start"][step] + self.steps["duration"][step]

    def first_token_time(self) -> np.ndarray:
        """TTFT of each request that got a token, float64: from its arrival to the end of that token's step."""
        decode = self.rows(Kind.DECODE)
        request, first_row = np.unique(decode["request"], return_index=True)
        return self._end_of(decode["step"][first_row]) - self.requests["arrival_time"][request]

    def latency(self) -> np.ndarray:
        """Of each finished request, float64: from its arrival to the end of its last step."""
        finish = self.rows(Kind.FINISH)
        return self._end_of(finish["step"]) - self.requests["arrival_time"][finish["request"]]

    def output_tokens(self) -> np.ndarray:
        """Output tokens of each request, int64 `[num_requests]`."""
        decode = self.rows(Kind.DECODE)
        return np.bincount(decode["request"], decode["tokens"], self.num_requests).astype(np.int64)

    def token_times(self) -> list[list[float]]:
        """For each request the times of its output tokens: of each, the end of its step."""
        ends = self.steps["start"] + self.steps["duration"]
        times: list[list[float]] = [[] for _ in range(self.num_requests)]
        rows = self.rows(Kind.DECODE)
        for request, step, count in zip(rows["request"], rows["step"], rows["tokens"], strict=True):
            times[request] += ends[step : step + count].tolist()
        return times

    def steps_and_requests(self) -> tuple[list[list[float]], list[dict[str, Any]]]:
        """The Trace as plain lists for exercise 06: [start, duration] of each step, and a dictionary for each request.

        Its keys: `arrival`, a time; `decode`, its runs of output tokens as [first step, tokens]; `finished`, a bool.
        """
        rows, finished = self.rows(Kind.DECODE), set(self.rows(Kind.FINISH)["request"].tolist())
        requests: list[dict[str, Any]] = [
            {"arrival": arrival, "decode": [], "finished": request in finished}
            for request, arrival in enumerate(self.requests["arrival_time"].tolist())
        ]
        for request, step, count in zip(rows["request"], rows["step"], rows["tokens"], strict=True):
            requests[request]["decode"].append([int(step), int(count)])
        steps = np.column_stack([self.steps["start"], self.steps["duration"]]).tolist()
        return steps, requests

    def time_per_output_token(self) -> np.ndarray:
        """TPOT of each finished request with two tokens or more, float64: the mean time from one token to the next."""
        decode, finish = self.rows(Kind.DECODE), self.rows(Kind.FINISH)
        request, first_row = np.unique(decode["request"], return_index=True)
        first = np.full(self.num_requests, np.nan)
        first[request] = self._end_of(decode["step"][first_row])
        gaps = self.output_tokens()[finish["request"]] - 1
        elapsed = self._end_of(finish["step"]) - first[finish["request"]]
        return elapsed[gaps > 0] / gaps[gaps > 0]

    def summary(self) -> dict[str, Any]:
        """The metrics as plain numbers, ready for JSON."""
        unit = self.header.clock
        return {
            "policy": self.header.policy,
            "slots": self.header.slots,
            "requests": self.num_requests,
            "steps": self.num_steps,
            "tokens": self.tokens,
            "utilization": round(self.utilization, 6),
            "slots_in_use": round(self.slots_in_use, 6),
            f"ttft_{unit}": percentiles(self.first_token_time()),
            f"latency_{unit}": percentiles(self.latency()),
        }


def percentiles(values: np.ndarray) -> dict[str, float]:
    """{"p50": …, "p90": …, "p99": …}; empty if there are no values."""
    if not len(values):
        return {}
    return {f"p{q}": float(v) for q, v in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)}


# ----- per step -----


def prefill_tokens(trace: TraceMetrics) -> np.ndarray:
    """Prompt tokens computed in each step, int64 `[num_steps]`, those computed again after a preemption included."""
    rows = trace.rows(Kind.PREFILL)
    return np.bincount(rows["step"], rows["tokens"], trace.num_steps).astype(np.int64)


def kv_tokens(trace: TraceMetrics) -> np.ndarray:
    """K/V tokens that attention reads in each step, int64 `[num_steps]`.

    A request reads the tokens it has stored, those of the step included. A run of decode reads one more each
    step: a ramp, kept as a change of level and of slope at either end.
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
    """Requests that decode in each step, int64 `[num_steps]`. The last chunk of a prompt is no decode."""
    rows = np.zeros(trace.num_steps + 1, np.int64)
    for run in computed_runs(trace):
        if not run.is_prefill:
            rows[run.step] += 1
            rows[run.step + run.steps] -= 1
    return np.cumsum(rows)[:-1]


class Run(NamedTuple):
    """Consecutive steps in which a request computes the same number of tokens.

    Attributes:
        request: its row in the Trace.
        step: the first step.
        steps: how many steps; 1 for a chunk of a prompt.
        stored: tokens it had stored before.
        tokens: tokens computed in each step.
        is_prefill: whether they are a chunk of a prompt.
    """

    request: int
    step: int
    steps: int
    stored: int
    tokens: int
    is_prefill: bool


def computed_runs(trace: TraceMetrics) -> Iterator[Run]:
    """All that was computed, request after request: chunks of prompts, and runs of decode.

    The token that is sampled from a prompt's last chunk is not part of a run. Where prompts are free, a request is
    admitted with its prompt stored.
    """
    prompts = np.maximum(trace.requests["prompt_tokens"], 1).tolist()
    rows = (trace.events[name].tolist() for name in ("request", "step", "kind", "tokens"))
    stored = given = 0
    prefill_step: int | None = (
        None  # the last step that computed a chunk of the prompt; None: none since admission
    )
    for request, step, kind, tokens in zip(*rows, strict=True):
        if kind == Kind.ARRIVE:
            given = 0
        elif kind == Kind.BOARD:
            stored, prefill_step = tokens, None
        elif kind == Kind.PREFILL:
            yield Run(request, step, 1, stored, tokens, True)
            stored, prefill_step = stored + tokens, step
        elif kind == Kind.DECODE:
            if prefill_step is None:
                stored, prefill_step = prompts[request] + given - 1, NEVER
            first, last = step + (prefill_step == step), step + tokens
            if last > first:
                yield Run(request, first, last - first, stored, 1, False)
            stored, given = stored + last - first, given + tokens


# ----- in all -----


def metrics(trace: TraceMetrics) -> dict[str, Any]:
    """The numbers of a Trace, ready for JSON: those of `Trace.summary`, of memory, and times between tokens.

    Further keys: seconds and tokens_per_second (if the clock is in seconds), finished, rejected, preemptions,
    prefill_tokens (those computed again included), recomputed_tokens, cached_tokens, kv_utilization (blocks held ÷
    all blocks, mean over time) and peak_blocks (both None where memory is not modeled), `itl_seconds` or
    `itl_steps`: percentiles of the time from one token of a request to its next, steps_with_queue (in which a request
    waited), held_by (see `held_shares`) and most_blocks_short (at the head of the queue; 0 if never).
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
        "steps_with_queue": int((trace.steps["waiting"] > 0).sum()),
        "held_by": held_shares(trace),
        "most_blocks_short": int(trace.steps["blocks_short"].max(initial=0)),
    }


def held_shares(trace: TraceMetrics) -> dict[str, float]:
    """Reason (a name of `HeldBy`, in small letters) -> its share of the steps in which requests wait.

    The reason is why the first of the queue was not admitted. The most frequent comes first; empty if no request
    ever waits.
    """
    reasons, steps = np.unique(trace.steps["held_by"][trace.steps["waiting"] > 0], return_counts=True)
    order = np.argsort(-steps, kind="stable")
    return {HeldBy(reasons[i]).name.lower(): round(float(steps[i] / steps.sum()), 6) for i in order}


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
    """Tokens that were computed again after a preemption, without those found in the prefix cache."""
    preempted = set(trace.rows(Kind.PREEMPT)["request"].tolist())
    furthest = dict.fromkeys(preempted, 0)
    total = 0
    for run in computed_runs(trace):
        if run.request in preempted:
            end = run.stored + run.steps * run.tokens
            total += max(0, min(end, furthest[run.request]) - run.stored)
            furthest[run.request] = max(end, furthest[run.request])
    return total


def inter_token_latency(trace: TraceMetrics) -> dict[str, float]:
    """Percentiles of the time from one token of a request to its next, over all requests."""
    ends = trace.steps["start"] + trace.steps["duration"]
    decode = trace.rows(Kind.DECODE)
    request, first, tokens = decode["request"], decode["step"], decode["tokens"]
    last = first + tokens - 1
    running = np.zeros(trace.num_steps + 1, np.int64)  # requests with a token in this step and the one before
    np.add.at(running, first + 1, 1)
    np.add.at(running, last + 1, -1)
    same = request[1:] == request[:-1]
    pauses = (ends[first[1:]] - ends[last[:-1]])[same]
    gaps = np.concatenate([np.diff(ends, prepend=0.0), pauses])
    counts = np.concatenate([np.cumsum(running)[:-1], np.ones(len(pauses), np.int64)])
    return weighted_percentiles(gaps, counts)


def weighted_percentiles(values: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """`percentiles` of `np.repeat(values, counts)`, without making that array."""
    total = int(counts.sum())
    if not total:
        return {}
    order = np.argsort(values, kind="stable")
    values, up_to = values[order], np.cumsum(counts[order])
    answer = {}
    for q in PERCENTILES:
        rank = q / 100 * (total - 1)
        low, high = (values[np.searchsorted(up_to, at, side="right")] for at in (int(rank), ceil(rank)))
        answer[f"p{q}"] = float(low + (high - low) * (rank - int(rank)))
    return answer
