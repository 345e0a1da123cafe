"""A Trace packed for watching: who sits where at every step, in a few int32 columns.

The browser gets these columns once and works out every frame by itself; `Ride.frame` does the same here, for
the still pictures and for the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from lessonlib.errors import CourseError
from lessonlib.trace import Kind, Trace

MOST_STAYS = 100_000
LONGEST_LABEL = 240

# Each table is int32 `[len(columns), rows]`, so that a column is one contiguous run of bytes.
STAY_COLUMNS = ("slot", "request", "first", "end", "how", "base")
SPAN_COLUMNS = ("stay", "kind", "first", "end", "before", "tokens")
WAIT_COLUMNS = ("request", "first", "end", "why")
STEP_COLUMNS = ("waiting", "running")
REQUEST_COLUMNS = ("goal", "prompt")
TABLES = {
    "stays": STAY_COLUMNS,
    "spans": SPAN_COLUMNS,
    "waits": WAIT_COLUMNS,
    "steps": STEP_COLUMNS,
    "requests": REQUEST_COLUMNS,
}

Traces = Trace | Sequence[Trace] | Mapping[str, Trace]


class Phase(Enum):
    """What a rider does in one step."""

    PREFILL = "prefill"
    DECODE = "decode"
    FINISHED = "finished"
    STALLED = "stalled"


@dataclass(frozen=True)
class Rider:
    """Someone on board in one step: `done` of `goal` output tokens given by the step's end."""

    request: int
    phase: Phase
    done: int
    goal: int


@dataclass(frozen=True)
class Frame:
    """One step: the rider in each slot or None, and who waits, in the order in which they will board."""

    riders: tuple[Rider | None, ...]
    waiting: tuple[int, ...]


@dataclass(frozen=True)
class Ride:
    """A packed Trace.

    Attributes:
        name: what the picture calls it.
        slots, num_steps, clock: as in the Trace.
        stays: one column a stay on board, by slot, then step: slot, request, first step, end (first step
            after), how it ended (`Kind`, 0: still on board), output tokens given before it.
        spans: one column a run of work, by stay, then step: stay, kind (PREFILL or DECODE), first step,
            end, tokens of that kind before it (PREFILL: in this stay; DECODE: of the request), tokens in it.
        waits: one column a wait, by its end: request, first step, end (the step it boards), why (ARRIVE or
            PREEMPT).
        steps: waiting and running after boarding, a column a step.
        requests: output tokens given in all, prompt tokens.
        times: float64 `[num_steps + 1]`, start of each step and the end of the last, in the clock's unit
            from 0.
        labels: optional text per request.
    """

    name: str
    slots: int
    num_steps: int
    clock: str
    stays: np.ndarray
    spans: np.ndarray
    waits: np.ndarray
    steps: np.ndarray
    requests: np.ndarray
    times: np.ndarray
    labels: tuple[str, ...] = ()

    @classmethod
    def from_trace(cls, trace: Trace, name: str) -> Ride:
        """Pack. Raises `CourseError` for more stays on board than a browser should be given."""
        stays = _stays(trace)
        if stays.shape[1] > MOST_STAYS:
            raise CourseError(
                f"{stays.shape[1]:,} boardings, more than are shown ({MOST_STAYS:,}): ride fewer requests"
            )
        order = np.lexsort((stays[2], stays[0]))
        return cls(
            name=name,
            slots=trace.header.slots,
            num_steps=trace.num_steps,
            clock=trace.header.clock,
            stays=stays[:, order],
            spans=_spans(trace, stays, order),
            waits=_waits(trace),
            steps=np.stack([trace.steps[column] for column in STEP_COLUMNS]).astype(np.int32),
            requests=np.stack([trace.output_tokens(), trace.requests["prompt_tokens"]]).astype(np.int32),
            times=_times(trace),
            labels=tuple(str(label)[:LONGEST_LABEL] for label in trace.labels),
        )

    # ----- the wire -----

    def to_wire(self) -> dict[str, Any]:
        """A small header, and bytes for each table (int32) and for the times (float64; empty for a count)."""
        plain = np.array_equal(self.times, np.arange(self.num_steps + 1))
        return {
            "name": self.name,
            "slots": self.slots,
            "num_steps": self.num_steps,
            "clock": self.clock,
            "labels": list(self.labels),
            "times": b"" if plain else self.times.tobytes(),
            **{table: np.ascontiguousarray(getattr(self, table)).tobytes() for table in TABLES},
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Ride:
        """The inverse of `to_wire`, as the browser reads it."""
        tables = {
            table: np.frombuffer(wire[table], np.int32).reshape(len(columns), -1)
            for table, columns in TABLES.items()
        }
        times = np.frombuffer(wire["times"]) if wire["times"] else np.arange(wire["num_steps"] + 1.0)
        return cls(
            wire["name"],
            wire["slots"],
            wire["num_steps"],
            wire["clock"],
            **tables,
            times=times,
            labels=tuple(wire["labels"]),
        )

    # ----- a frame -----

    def frame(self, step: int) -> Frame:
        """Who is where in one step; after the last step the car is empty."""
        slot, _, first, end, _, _ = self.stays
        riders: list[Rider | None] = [None] * self.slots
        for stay in np.flatnonzero((first <= step) & (step < end)):
            riders[slot[stay]] = self._rider(int(stay), step)
        request, since, until, _ = self.waits
        return Frame(tuple(riders), tuple(request[(since <= step) & (step < until)].tolist()))

    def _rider(self, stay: int, step: int) -> Rider:
        _, request, _, end, how, base = (int(value) for value in self.stays[:, stay])
        spans = self.spans[:, (self.spans[0] == stay) & (self.spans[2] <= step)]
        work = set(spans[1, spans[3] > step].tolist())
        decode = spans[:, spans[1] == Kind.DECODE]
        done = base
        if decode.shape[1]:
            _, _, first, _, before, tokens = decode[:, -1]
            done = int(before + min(step - first + 1, tokens))
        if step == end - 1 and how == Kind.FINISH:
            phase = Phase.FINISHED
        elif Kind.PREFILL in work:
            phase = Phase.PREFILL
        else:
            phase = Phase.DECODE if Kind.DECODE in work else Phase.STALLED
        return Rider(request, phase, done, int(self.requests[0, request]))


def named_traces(traces: Traces) -> dict[str, Trace]:
    """One Trace, several, or several with names, as name -> Trace. Raises `CourseError` for anything else."""
    if isinstance(traces, Trace):
        traces = [traces]
    if isinstance(traces, Sequence) and all(isinstance(trace, Trace) for trace in traces):
        traces = _name_by_policy(traces)
    if isinstance(traces, Mapping) and traces and all(isinstance(trace, Trace) for trace in traces.values()):
        return {str(name): trace for name, trace in traces.items()}
    raise CourseError("nothing to show: give a Trace, a list of Traces or a dict of name -> Trace")


def _name_by_policy(traces: Sequence[Trace]) -> dict[str, Trace]:
    names: dict[str, Trace] = {}
    for trace in traces:
        name = trace.header.policy or trace.header.maker
        taken = sum(other == name or other.startswith(f"{name} (") for other in names)
        names[f"{name} ({taken + 1})" if taken else name] = trace
    return names


def pack(traces: Traces) -> list[Ride]:
    """Every Trace as a Ride, in order."""
    return [Ride.from_trace(trace, name) for name, trace in named_traces(traces).items()]


# ----- from events to columns -----


def _rows(trace: Trace, *kinds: Kind) -> dict[str, np.ndarray]:
    chosen = np.isin(trace.events["kind"], kinds)
    return {name: column[chosen] for name, column in trace.events.items()}


def _next_of_same_request(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Bool: whether the next row is about the same request."""
    request = rows["request"]
    return np.append(request[1:] == request[:-1], False) if len(request) else np.zeros(0, bool)


def _stays(trace: Trace) -> np.ndarray:
    """`STAY_COLUMNS` in order of request: each BOARD row is paired with the row that ends the stay."""
    rows = _rows(trace, Kind.PREEMPT, Kind.BOARD, Kind.FINISH, Kind.ABORT)
    board = np.flatnonzero(rows["kind"] == Kind.BOARD)
    if not len(board):
        return np.zeros((len(STAY_COLUMNS), 0), np.int32)
    follower = np.minimum(board + 1, len(rows["kind"]) - 1)
    ended = _next_of_same_request(rows)[board] & (rows["kind"][follower] != Kind.BOARD)
    how = np.where(ended, rows["kind"][follower], 0)
    # A PREEMPT row names the first step off board, FINISH and ABORT the last step on board.
    end = np.where(ended, rows["step"][follower] + (how != Kind.PREEMPT), trace.num_steps)
    request, first = rows["request"][board], rows["step"][board]
    base = _tokens_before(trace, request, first)
    return np.stack([rows["slot"][board], request, first, end, how, base]).astype(np.int32)


def _tokens_before(trace: Trace, request: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Output tokens that `request` had been given before `step`, a row each."""
    decode = trace.rows(Kind.DECODE)
    given = np.concatenate([[0], np.cumsum(decode["tokens"])])
    at = np.searchsorted(_key(trace, decode["request"], decode["step"]), _key(trace, request, step))
    start = np.searchsorted(decode["request"], request)
    return given[at] - given[start]


def _key(trace: Trace, request: np.ndarray, step: np.ndarray) -> np.ndarray:
    """One sortable integer for (request, step)."""
    return request * (trace.num_steps + 2) + step


def _spans(trace: Trace, stays: np.ndarray, order: np.ndarray) -> np.ndarray:
    """`SPAN_COLUMNS`; `stays` in order of request, `order` the places of the final one."""
    rows = _rows(trace, Kind.PREFILL, Kind.DECODE)
    if not len(rows["step"]) or not stays.shape[1]:
        return np.zeros((len(SPAN_COLUMNS), 0), np.int32)
    stay_keys = _key(trace, stays[1].astype(np.int64), stays[2].astype(np.int64))
    by_request = np.searchsorted(stay_keys, _key(trace, rows["request"], rows["step"]), side="right") - 1
    is_decode = rows["kind"] == Kind.DECODE
    tokens = rows["tokens"]
    before = np.where(
        is_decode,
        _sum_before(tokens * is_decode, rows["request"]),
        _sum_before(tokens * ~is_decode, by_request),
    )
    end = rows["step"] + np.where(is_decode, tokens, 1)
    stay = np.argsort(order)[by_request]
    spans = np.stack([stay, rows["kind"], rows["step"], end, before, tokens]).astype(np.int32)
    return spans[:, np.lexsort((spans[1], spans[2], spans[0]))]


def _sum_before(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """For each row, the sum of the earlier rows of its group; `group` is ascending."""
    running = np.cumsum(values) - values
    return running - running[np.searchsorted(group, group)]


def _waits(trace: Trace) -> np.ndarray:
    """`WAIT_COLUMNS`: from each ARRIVE or PREEMPT to the next row of the request that ends the wait."""
    rows = _rows(trace, Kind.ARRIVE, Kind.REJECT, Kind.PREEMPT, Kind.BOARD, Kind.ABORT)
    starts = np.flatnonzero(np.isin(rows["kind"], (Kind.ARRIVE, Kind.PREEMPT)))
    if not len(starts):
        return np.zeros((len(WAIT_COLUMNS), 0), np.int32)
    follower = np.minimum(starts + 1, len(rows["kind"]) - 1)
    ended = _next_of_same_request(rows)[starts]
    end = np.where(ended, rows["step"][follower] + (rows["kind"][follower] == Kind.ABORT), trace.num_steps)
    waits = np.stack([rows["request"][starts], rows["step"][starts], end, rows["kind"][starts]]).astype(
        np.int32
    )
    return waits[:, np.argsort(waits[2], kind="stable")]


def _times(trace: Trace) -> np.ndarray:
    start, duration = trace.steps["start"], trace.steps["duration"]
    if not len(start):
        return np.zeros(1)
    return np.append(start, start[-1] + duration[-1]) - start[0]
