"""The Trace: the one record of a ride, written by every simulator and engine, read by every picture.

Events are columns, one row each. A run of decode steps is one row with a length, so a million requests
cost four rows each. Rows are ordered by request, then by step, then by kind: the two forms of a scheduler
are compared by comparing their Traces.
"""

from __future__ import annotations

import gzip
import json
import platform
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from lessonlib import __version__
from lessonlib.errors import CourseError
from lessonlib.files import write_whole

SCHEMA_VERSION = 1
NO_SLOT = -1
PERCENTILES = (50, 90, 99)


class Kind(IntEnum):
    """What happened to a request. The order is the order of events within one step."""

    ARRIVE = 0
    REJECT = 1
    PREEMPT = 2
    BOARD = 3
    PREFILL = 4
    DECODE = 5
    FINISH = 6
    ABORT = 7


EVENT_COLUMNS = ("step", "request", "slot", "kind", "tokens", "blocks")
STEP_COLUMNS = ("start", "duration", "waiting", "running", "free_blocks")
REQUEST_COLUMNS = ("prompt_tokens", "arrival_time", "priority")
OVERHEARD_COLUMNS = ("step", "request", "other", "blocks")


def _nothing_overheard() -> dict[str, np.ndarray]:
    return {name: np.zeros(0, np.int64) for name in OVERHEARD_COLUMNS}


@dataclass(frozen=True)
class Header:
    """What a reader must know before it reads the columns.

    Attributes:
        slots: how many requests may be on board at once.
        clock: unit of `start` and `duration`: "steps" (one step is one unit) or "seconds".
        maker: what produced the Trace, e.g. "simulator", "course engine", "vllm".
        policy: name of the scheduling policy.
        block_size: tokens per K/V block; 0 where memory is not modelled.
        num_blocks: K/V blocks in the pool; 0 where memory is not modelled.
        poisoned: whether free blocks were filled with what is not a number, so that nobody reads one unnoticed.
        versions: versions of what made it.
        schema: version of this format.
    """

    slots: int
    clock: str = "steps"
    maker: str = "simulator"
    policy: str = ""
    block_size: int = 0
    num_blocks: int = 0
    poisoned: bool = False
    versions: Mapping[str, str] = field(
        default_factory=lambda: {"lessonlib": __version__, "python": platform.python_version()}
    )
    schema: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Trace:
    """The record of one ride.

    Attributes:
        header: see `Header`.
        events: int64 arrays of equal length, one row per event:
            step, request (row of `requests`), slot (-1: none), kind (`Kind`), tokens, blocks (K/V blocks held
            after the event; 0 where memory is not modelled).
            ARRIVE: `step` is the first step that could board the request.
            BOARD: `tokens` of its prompt were found in the prefix cache.
            PREFILL: `tokens` prompt tokens were computed in `step`.
            DECODE: one output token was given in each of the steps `step … step + tokens - 1`. A prompt's last
            prefill step also gives the first output token, so both rows may name the same step.
            FINISH, ABORT: `step` is the last step the request was on board for.
            PREEMPT: `step` is the first step that the request is no longer on board for.
        steps: arrays of length `num_steps`: start, duration (float64, in the header's clock), waiting, running
            (int64, counted after boarding), free_blocks (int64).
        requests: per request: prompt_tokens, priority (int64) and arrival_time (float64, in the header's clock).
        labels: optional text per request (a prompt, a name). Shown as text, never as markup.
        overheard: int64 arrays of equal length, in order of step: in `step`, `request` read `blocks` blocks
            whose words `other` had written. Empty where the allocator is sound, or where nobody looked.
    """

    header: Header
    events: Mapping[str, np.ndarray]
    steps: Mapping[str, np.ndarray]
    requests: Mapping[str, np.ndarray]
    labels: Sequence[str] = ()
    overheard: Mapping[str, np.ndarray] = field(default_factory=_nothing_overheard)

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

    # ----- a file -----

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON."""
        return {
            "header": {**vars(self.header), "versions": dict(self.header.versions)},
            "events": {name: column.tolist() for name, column in self.events.items()},
            "steps": {name: column.tolist() for name, column in self.steps.items()},
            "requests": {name: column.tolist() for name, column in self.requests.items()},
            "labels": list(self.labels),
            "overheard": {name: column.tolist() for name, column in self.overheard.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trace:
        """The inverse of `to_dict`. Raises `CourseError` for another schema or missing columns."""
        try:
            schema = data["header"]["schema"]
            if schema > SCHEMA_VERSION:
                raise CourseError(
                    f"trace schema {schema} is newer than this lessonlib reads ({SCHEMA_VERSION}): update the course"
                )
            return cls(
                header=Header(**data["header"]),
                events={name: np.asarray(data["events"][name], np.int64) for name in EVENT_COLUMNS},
                steps={
                    name: np.asarray(
                        data["steps"][name], np.float64 if name in ("start", "duration") else np.int64
                    )
                    for name in STEP_COLUMNS
                },
                requests={
                    name: np.asarray(
                        data["requests"][name], np.float64 if name == "arrival_time" else np.int64
                    )
                    for name in REQUEST_COLUMNS
                },
                labels=tuple(data.get("labels", ())),
                overheard={
                    name: np.asarray(data.get("overheard", _nothing_overheard())[name], np.int64)
                    for name in OVERHEARD_COLUMNS
                },
            )
        except (KeyError, TypeError) as error:
            raise CourseError(
                f"not a trace: {error} is missing or malformed; save one with Trace.save"
            ) from error

    def save(self, path: str | Path) -> Path:
        """Write JSON; gzip-compressed where the name ends in .gz. Raises `CourseError` where it cannot be written."""
        text = json.dumps(self.to_dict(), separators=(",", ":")).encode()
        return write_whole(path, gzip.compress(text, mtime=0) if Path(path).suffix == ".gz" else text)

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read what `save` wrote. Raises `CourseError` where the file is missing or is no Trace."""
        path = Path(path)
        if not path.is_file():
            raise CourseError(f"no trace at {path}: save one with Trace.save")
        raw = path.read_bytes()
        try:
            return cls.from_dict(json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw))
        except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
            raise CourseError(f"{path} is not a trace: {error}; save one with Trace.save") from error

    def same_ride(self, other: Trace) -> bool:
        """Whether every event and every step's counts agree (times and versions aside)."""
        return all(np.array_equal(self.events[name], other.events[name]) for name in EVENT_COLUMNS) and all(
            np.array_equal(self.steps[name], other.steps[name])
            for name in ("waiting", "running", "free_blocks")
        )

    def __repr__(self) -> str:
        head = self.header
        return (
            f"Trace({head.policy or head.maker}: {self.num_requests:,} requests in {head.slots:,} slots, "
            f"{self.num_steps:,} steps, {self.tokens:,} tokens, {self.utilization:.2%} utilization)"
        )


def percentiles(values: np.ndarray) -> dict[str, float]:
    """{"p50": …, "p90": …, "p99": …}, linear interpolation; empty for no values."""
    if not len(values):
        return {}
    return {f"p{q}": float(v) for q, v in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)}


class TraceBuilder:
    """Collects events in the order they happen and folds runs of decode into one row each.

    A scheduler or an engine calls the methods as things happen, `end_step` once a step, then `build`.
    """

    def __init__(
        self,
        header: Header,
        prompt_tokens: Iterable[int],
        arrival_time: Iterable[float],
        priority: Iterable[int] | None = None,
        labels: Sequence[str] = (),
    ) -> None:
        self.header = header
        self._prompt_tokens = list(prompt_tokens)
        self._arrival_time = list(arrival_time)
        self._priority = list(priority) if priority is not None else [0] * len(self._prompt_tokens)
        self._labels = labels
        self._rows: list[list[int]] = []
        self._open_run: dict[int, int] = {}  # request -> its DECODE row that may still grow
        self._steps: list[tuple[float, float, int, int, int]] = []
        self._overheard: list[tuple[int, int, int, int]] = []

    @property
    def step(self) -> int:
        """The step being recorded."""
        return len(self._steps)

    def add(
        self,
        kind: Kind,
        request: int,
        slot: int = NO_SLOT,
        tokens: int = 0,
        blocks: int = 0,
        step: int | None = None,
    ) -> None:
        """Record one event, of the current step unless told. For DECODE, `tokens` is 1: the run grows by itself."""
        if kind is Kind.DECODE:
            row = self._rows[self._open_run[request]] if request in self._open_run else None
            if row is not None and row[0] + row[4] == self.step and row[2] == slot:
                row[4] += tokens
                row[5] = blocks
                return
            self._open_run[request] = len(self._rows)
        self._rows.append([self.step if step is None else step, request, slot, int(kind), tokens, blocks])

    def overhear(self, step: int, request: int, other: int, blocks: int) -> None:
        """Record that `request` read `blocks` blocks that `other` had written."""
        self._overheard.append((step, request, other, blocks))

    def end_step(
        self,
        waiting: int,
        running: int,
        free_blocks: int = 0,
        start: float | None = None,
        duration: float = 1.0,
    ) -> None:
        """Close the current step. Without `start`, the step starts where the last one ended."""
        if start is None:
            start = self._steps[-1][0] + self._steps[-1][1] if self._steps else 0.0
        self._steps.append((start, duration, waiting, running, free_blocks))

    def add_request(self, prompt_tokens: int, arrival_time: float, priority: int = 0) -> int:
        """Announce a request that was not known at the start; returns its row."""
        self._prompt_tokens.append(prompt_tokens)
        self._arrival_time.append(arrival_time)
        self._priority.append(priority)
        return len(self._prompt_tokens) - 1

    def roll_back(self, kept: Collection[int]) -> dict[int, int]:
        """Keep what the ended steps hold, and nothing of a step that was cut short. Safe to call again.

        Args:
            kept: rows of the requests that go on. Those on board are noted as preempted.

        Returns:
            Output tokens given in the ended steps, by row, to those of `kept` that had not finished by then.
            Other unfinished requests are noted as aborted, or as rejected where they never boarded.
        """
        ended = self.step
        known = min(len(self._prompt_tokens), len(self._arrival_time), len(self._priority))
        for column in (self._prompt_tokens, self._arrival_time, self._priority):
            del column[known:]
        given, slots, boarded = dict.fromkeys(range(known), 0), dict[int, int](), set[int]()
        rows = list[list[int]]()
        for step, request, slot, kind, tokens, blocks in sorted(self._rows, key=lambda row: (row[0], row[3])):
            if kind in (Kind.ARRIVE, Kind.REJECT, Kind.ABORT):
                step = min(step, ended)
            elif step >= ended:
                continue
            if kind == Kind.DECODE:
                tokens = min(tokens, ended - step)
                given[request] += tokens
            elif kind == Kind.BOARD:
                slots[request] = slot
                boarded.add(request)
            elif kind == Kind.PREEMPT:
                slots.pop(request, None)
            elif kind in (Kind.REJECT, Kind.FINISH, Kind.ABORT):
                slots.pop(request, None)
                del given[request]
            rows.append([step, request, slot, kind, tokens, blocks])
        for request in given.keys() - set(kept):
            kind = Kind.ABORT if request in boarded else Kind.REJECT
            rows.append([max(0, ended - 1), request, slots.pop(request, NO_SLOT), int(kind), 0, 0])
            del given[request]
        rows += [[ended, request, slot, int(Kind.PREEMPT), 0, 0] for request, slot in slots.items()]
        self._rows, self._open_run = rows, {}
        self._overheard = [row for row in self._overheard if row[0] < ended]
        return given

    def build(self) -> Trace:
        """The Trace so far, rows in canonical order."""
        rows = np.asarray(self._rows, np.int64).reshape(-1, len(EVENT_COLUMNS))
        rows = rows[np.lexsort((rows[:, 3], rows[:, 0], rows[:, 1]))]
        steps = list(zip(*self._steps, strict=True)) if self._steps else [()] * len(STEP_COLUMNS)
        dtypes = (np.float64, np.float64, np.int64, np.int64, np.int64)
        return Trace(
            header=self.header,
            events={name: rows[:, i] for i, name in enumerate(EVENT_COLUMNS)},
            steps={
                name: np.asarray(column, dtype)
                for name, column, dtype in zip(STEP_COLUMNS, steps, dtypes, strict=True)
            },
            requests={
                "prompt_tokens": np.asarray(self._prompt_tokens, np.int64),
                "arrival_time": np.asarray(self._arrival_time, np.float64),
                "priority": np.asarray(self._priority, np.int64),
            },
            labels=tuple(self._labels),
            overheard=dict(
                zip(
                    OVERHEARD_COLUMNS,
                    np.asarray(self._overheard, np.int64).reshape(-1, len(OVERHEARD_COLUMNS)).T,
                    strict=True,
                )
            ),
        )
