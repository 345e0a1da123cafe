"""The Trace: the one record of a run, written by every simulator and engine, read by every picture.

Events are rows of columns. Consecutive decode steps of a request are one row with a length, so that a request takes
about four rows. Rows are ordered by request, then by step, then by kind, so that two schedulers are compared by
comparing their Traces. `metrics` has all that is computed from one.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lessonlib.counting import count
from lessonlib.errors import CourseError
from lessonlib.files import write_whole
from lessonlib.metrics import TraceMetrics
from lessonlib.trace_schema import (
    EVENT_COLUMNS,
    NO_SLOT,
    OVERHEARD_COLUMNS,
    REASON_COLUMNS,
    REQUEST_COLUMNS,
    SCHEMA_VERSION,
    STEP_COLUMNS,
    Header,
    HeldBy,
    Kind,
)

__all__ = ["NO_SLOT", "Header", "HeldBy", "Kind", "Trace", "TraceBuilder"]


def _nothing_overheard() -> dict[str, np.ndarray]:
    return {name: np.zeros(0, np.int64) for name in OVERHEARD_COLUMNS}


@dataclass(frozen=True)
class Trace(TraceMetrics):
    """The record of one run.

    Attributes:
        header: see `Header`.
        events: int64 arrays of equal length, one row per event:
            step, request (row of `requests`), slot (-1: none), kind (`Kind`), tokens, blocks (K/V blocks held
            after the event; 0 where memory is not modelled).
            ARRIVE: `step` is the first step that could admit the request.
            BOARD: the request was admitted, and `tokens` of its prompt were found in the prefix cache.
            PREFILL: `tokens` prompt tokens were computed in `step`.
            DECODE: the request got one output token in each of the steps `step … step + tokens - 1`. A prompt's last
            prefill step also gives the first output token, so both rows may name the same step.
            FINISH, ABORT: `step` is the last step in which the request was running.
            PREEMPT: `step` is the first step in which the request is no longer running.
        steps: arrays of length `num_steps`: start, duration (float64, in the header's clock), waiting, running
            (int64, counted after admission), free_blocks (int64), held_by (`HeldBy`: why the first of those who
            wait was not admitted) and blocks_short (int64: where that is BLOCKS, how many blocks were missing).
        requests: per request: prompt_tokens, priority (int64) and arrival_time (float64, in the header's clock).
        labels: optional text per request (a prompt, a name). Shown as text, never as markup.
        overheard: int64 arrays of equal length, in order of step: in `step`, `request` read `blocks` blocks
            that `other` had written. Empty if the allocator is correct, or was not watched.
    """

    header: Header
    events: Mapping[str, np.ndarray]
    steps: Mapping[str, np.ndarray]
    requests: Mapping[str, np.ndarray]
    labels: Sequence[str] = ()
    overheard: Mapping[str, np.ndarray] = field(default_factory=_nothing_overheard)

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
        """The inverse of `to_dict`. Raises `CourseError` for a newer schema or missing columns."""
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
                    name: np.asarray(column, np.float64 if name in ("start", "duration") else np.int64)
                    for name, column in _step_columns(data["steps"], schema).items()
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
        """Write JSON, gzip-compressed if the name ends in .gz. Raises `CourseError` if it cannot be written."""
        text = json.dumps(self.to_dict(), separators=(",", ":")).encode()
        return write_whole(path, gzip.compress(text, mtime=0) if Path(path).suffix == ".gz" else text)

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read a file of `save`. Raises `CourseError` if it is missing or not a Trace."""
        path = Path(path)
        if not path.is_file():
            raise CourseError(f"no trace at {path}: save one with Trace.save")
        raw = path.read_bytes()
        try:
            return cls.from_dict(json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw))
        except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
            raise CourseError(f"{path} is not a trace: {error}; save one with Trace.save") from error

    def same_ride(self, other: Trace) -> bool:
        """Whether all events and all counts of steps are equal. Times, reasons and versions are not compared."""
        return all(np.array_equal(self.events[name], other.events[name]) for name in EVENT_COLUMNS) and all(
            np.array_equal(self.steps[name], other.steps[name])
            for name in ("waiting", "running", "free_blocks")
        )

    def __repr__(self) -> str:
        head = self.header
        return (
            f"Trace({head.policy or head.maker}: {count(self.num_requests, 'request')} in {count(head.slots, 'slot')}, "
            f"{count(self.num_steps, 'step')}, {count(self.tokens, 'token')}, {self.utilization:.2%} utilization)"
        )


def _step_columns(steps: Mapping[str, Sequence[float]], schema: int) -> dict[str, Sequence[float]]:
    """The columns of a file. Before schema 2 no reasons were recorded, so those for waiting are unknown."""
    reasons: dict[str, Sequence[float]] = {}
    if schema < 2:
        waiting = steps["waiting"]
        held_by = [HeldBy.UNKNOWN if number else HeldBy.NOTHING for number in waiting]
        reasons = dict(zip(REASON_COLUMNS, (held_by, [0] * len(waiting)), strict=True))
    return {name: steps[name] if name in steps else reasons[name] for name in STEP_COLUMNS}


class TraceBuilder:
    """Collects events in the order they happen, with consecutive decodes of a request as one row.

    A scheduler or an engine calls `add` for each event, `end_step` once a step, and `build` at the end.

    Args:
        header: of the Trace.
        prompt_tokens, arrival_time, priority: one for each request that is known from the start.
        labels: optional text for each request.
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
        self._steps: list[tuple[float, float, int, int, int, int, int]] = []
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
        """Record one event, by default of the current step. A DECODE of the step after the last one extends its row."""
        if kind is Kind.DECODE:
            row = self._rows[self._open_run[request]] if request in self._open_run else None
            if row is not None and row[0] + row[4] == self.step and row[2] == slot:
                row[4] += tokens
                row[5] = blocks
                return
            self._open_run[request] = len(self._rows)
        self._rows.append([self.step if step is None else step, request, slot, int(kind), tokens, blocks])

    def overhear(self, step: int, request: int, other: int, blocks: int) -> None:
        """Record that in `step` `request` read `blocks` blocks that `other` had written."""
        self._overheard.append((step, request, other, blocks))

    def end_step(
        self,
        waiting: int,
        running: int,
        free_blocks: int = 0,
        start: float | None = None,
        duration: float = 1.0,
        held_by: HeldBy | None = None,
        blocks_short: int = 0,
    ) -> None:
        """Close the current step. By default it started when the last one ended.

        `held_by` None: what makes the Trace does not know why requests wait.
        """
        if held_by is None:
            held_by = HeldBy.UNKNOWN if waiting else HeldBy.NOTHING
        if start is None:
            start = self._steps[-1][0] + self._steps[-1][1] if self._steps else 0.0
        self._steps.append((start, duration, waiting, running, free_blocks, int(held_by), blocks_short))

    def add_request(self, prompt_tokens: int, arrival_time: float, priority: int = 0) -> int:
        """Add a request that was not known at the start. Returns its row."""
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
        dtypes = (np.float64, np.float64, *[np.int64] * (len(STEP_COLUMNS) - 2))
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
