"""A Trace packed for watching: who sits where at every step, in a few int32 columns.

The browser gets these columns once and works out every frame by itself; `Ride.frame` does the same here, for
the still pictures and for the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np

from lessonlib.errors import CourseError
from lessonlib.trace import Kind, Trace
from lessonlib.trace_schema import OVERHEARD_COLUMNS
from lessonlib.trace_schema import REASON_COLUMNS as REASONS

MOST_STAYS = 100_000
LONGEST_LABEL = 240
LONGEST_TEXT = 2000

# Each table is int32 `[len(columns), rows]`, so that a column is one contiguous run of bytes.
STAY_COLUMNS = ("slot", "request", "first", "end", "how", "base")
SPAN_COLUMNS = ("stay", "kind", "first", "end", "before", "tokens")
WAIT_COLUMNS = ("request", "first", "end", "why")
STEP_COLUMNS = ("waiting", "running")
REQUEST_COLUMNS = ("goal", "prompt")
REASON_COLUMNS = ("step", *REASONS)
# Memory, empty where a Trace does not model it: row for row beside stays, spans and steps.
STAY_BLOCK_COLUMNS = ("blocks", "cached")
SPAN_BLOCK_COLUMNS = ("blocks",)
STEP_BLOCK_COLUMNS = ("free",)
TABLES = {
    "stays": STAY_COLUMNS,
    "spans": SPAN_COLUMNS,
    "waits": WAIT_COLUMNS,
    "steps": STEP_COLUMNS,
    "requests": REQUEST_COLUMNS,
    "stay_blocks": STAY_BLOCK_COLUMNS,
    "span_blocks": SPAN_BLOCK_COLUMNS,
    "step_blocks": STEP_BLOCK_COLUMNS,
    "overheard": OVERHEARD_COLUMNS,
    "reasons": REASON_COLUMNS,
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
class Memory:
    """The K/V blocks in one step; `shared`, all of `own`, `other` and `free` add up to the pool.

    Attributes:
        tables: blocks in the table of the rider in each slot, 0 for an empty one.
        own: those of them that are drawn as the rider's own.
        shared: blocks that are drawn as shared. A Trace holds counts, not which block is whose: this is
            exact where everyone shares one prefix, and otherwise never more than `saved`.
        saved: how many more blocks the tables would take if nothing were shared.
        other: held, but by nobody on board.
        free: free to hand out; what they hold may still be found by a prefix.
        lost: (request, blocks) of those put off in this step.
    """

    tables: tuple[int, ...]
    own: tuple[int, ...]
    shared: int
    saved: int
    other: int
    free: int
    lost: tuple[tuple[int, int], ...] = ()

    @property
    def held(self) -> int:
        """Blocks that are not free."""
        return self.shared + sum(self.own) + self.other


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
        block_size: tokens a K/V block holds.
        capacity: K/V blocks that riders can hold, without the null block; 0 where memory is not modeled, and
            then the next three are empty.
        stay_blocks: blocks held after boarding, and the prefix among them that was there already, a column a
            stay.
        span_blocks: blocks held at the end of a run of work, a column a span.
        step_blocks: free blocks, a column a step.
        overheard: as in the Trace, a column a row.
        reasons: why the first in line did not board (`HeldBy`), and by how many blocks it was short, from a step on;
            a column each time this changes. Empty in rides packed before Traces had reasons.
        arrivals: float64, when each request arrived, on the clock of `times`.
        poisoned: as in the Trace's header.
        prompts, texts: optional words per request: what it asks, what it was answered.
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
    block_size: int
    capacity: int
    stay_blocks: np.ndarray
    span_blocks: np.ndarray
    step_blocks: np.ndarray
    overheard: np.ndarray
    reasons: np.ndarray
    arrivals: np.ndarray
    poisoned: bool = False
    prompts: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    @classmethod
    def from_trace(cls, trace: Trace, name: str) -> Ride:
        """Pack. Raises `CourseError` for more stays on board than a browser should be given."""
        stays = _stays(trace)
        if stays.shape[1] > MOST_STAYS:
            raise CourseError(
                f"{stays.shape[1]:,} boardings, more than are shown ({MOST_STAYS:,}): ride fewer requests"
            )
        order = np.lexsort((stays[2], stays[0]))
        spans, span_rows = _spans(trace, stays, order)
        blocks: dict[str, Any] = _blocks(trace, order, span_rows)
        return cls(
            name=name,
            slots=trace.header.slots,
            num_steps=trace.num_steps,
            clock=trace.header.clock,
            stays=stays[:, order],
            spans=spans,
            waits=_waits(trace),
            steps=np.stack([trace.steps[column] for column in STEP_COLUMNS]).astype(np.int32),
            requests=np.stack([trace.output_tokens(), trace.requests["prompt_tokens"]]).astype(np.int32),
            times=_times(trace),
            block_size=trace.header.block_size,
            capacity=_capacity(trace),
            **blocks,
            overheard=np.stack([trace.overheard[name] for name in OVERHEARD_COLUMNS]).astype(np.int32),
            reasons=_reasons(trace),
            arrivals=_arrivals(trace),
            poisoned=trace.header.poisoned,
            prompts=_clipped(trace.labels, LONGEST_LABEL),
        )

    def with_words(self, prompts: Sequence[str], texts: Sequence[str]) -> Ride:
        """The same ride with what its requests ask, where that is given, and what they were answered.

        Raises `CourseError` for words that are not one for each request.
        """
        requests = self.requests.shape[1]
        for name, words in (("prompts", prompts), ("texts", texts)):
            if words and len(words) != requests:
                raise CourseError(
                    f"{len(words):,} {name} for the {requests:,} requests of {self.name!r}: give one for each"
                )
        return replace(
            self,
            prompts=_clipped(prompts, LONGEST_LABEL) or self.prompts,
            texts=_clipped(texts, LONGEST_TEXT),
        )

    # ----- the wire -----

    def to_wire(self) -> dict[str, Any]:
        """A small header, and bytes for each table (int32) and for times (float64; empty where they are plain)."""
        plain = np.array_equal(self.times, np.arange(self.num_steps + 1))
        return {
            "name": self.name,
            "slots": self.slots,
            "num_steps": self.num_steps,
            "clock": self.clock,
            "block_size": self.block_size,
            "capacity": self.capacity,
            "poisoned": self.poisoned,
            "prompts": list(self.prompts),
            "texts": list(self.texts),
            "times": b"" if plain else self.times.tobytes(),
            "arrivals": self.arrivals.tobytes() if self.arrivals.any() else b"",
            **{table: np.ascontiguousarray(getattr(self, table)).tobytes() for table in TABLES},
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Ride:
        """The inverse of `to_wire`, as the browser reads it."""
        tables = {
            table: np.frombuffer(wire.get(table, b""), np.int32).reshape(len(columns), -1)
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
            block_size=wire["block_size"],
            capacity=wire["capacity"],
            arrivals=np.frombuffer(wire["arrivals"])
            if wire["arrivals"]
            else np.zeros(tables["requests"].shape[1]),
            poisoned=wire["poisoned"],
            prompts=tuple(wire["prompts"]),
            texts=tuple(wire["texts"]),
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

    # ----- memory -----

    def memory(self, step: int) -> Memory:
        """Who holds how many K/V blocks in one step; after the last step all are free."""
        if not 0 <= step < self.num_steps or not self.capacity:
            return Memory((0,) * self.slots, (0,) * self.slots, 0, 0, 0, self.capacity)
        _, request, first, end, how, _ = self.stays
        on_board = np.flatnonzero((first <= step) & (step < end))
        tables = {int(stay): self._blocks_of(int(stay), step) for stay in on_board}
        free = int(self.step_blocks[0, step])
        held = self.capacity - free
        saved = max(0, sum(tables.values()) - held)
        cached = {stay: min(int(self.stay_blocks[1, stay]), blocks) for stay, blocks in tables.items()}
        shared = min(_shared([blocks for blocks in cached.values() if blocks], saved), held)
        own = self._own(tables, cached, shared, saved + shared)
        put_off = np.flatnonzero((end == step) & (how == Kind.PREEMPT) & (first < end))
        return Memory(
            self._by_slot(tables),
            self._by_slot(own),
            shared,
            saved,
            other=max(0, held - sum(tables.values())),
            free=free,
            lost=tuple((int(request[stay]), self._blocks_of(int(stay), step - 1)) for stay in put_off),
        )

    def _blocks_of(self, stay: int, step: int) -> int:
        """Blocks in the table of a stay. A run of decode takes one when what it stores fills the last."""
        mine = np.flatnonzero((self.spans[0] == stay) & (self.spans[2] <= step))
        if not len(mine):
            return int(self.stay_blocks[0, stay])
        last = mine[-1]
        _, kind, first, _, before, tokens = (int(value) for value in self.spans[:, last])
        after = int(self.span_blocks[0, last])
        if kind != Kind.DECODE:
            return after
        earlier = int(self.span_blocks[0, mine[-2]] if len(mine) > 1 else self.stay_blocks[0, stay])
        prompt = max(1, int(self.requests[1, self.stays[1, stay]]))
        stored = prompt + before + min(step - first, tokens - 1)
        return min(after, max(earlier, -(-stored // self.block_size)))

    def _own(
        self, tables: Mapping[int, int], cached: Mapping[int, int], shared: int, drawn_once: int
    ) -> dict[int, int]:
        """Each table less what it has in common: first of those who found a prefix, then of who first had it."""
        own = dict(tables)
        finders = [stay for stay in tables if cached[stay]]
        others = sorted((stay for stay in tables if not cached[stay]), key=lambda stay: self.stays[2, stay])
        limits = [
            *((stay, cached[stay]) for stay in finders),
            *((stay, shared) for stay in others),
            *((stay, tables[stay]) for stay in tables),
        ]
        for stay, limit in limits:
            taken = min(limit, own[stay], drawn_once)
            own[stay] -= taken
            drawn_once -= taken
        return own

    def _by_slot(self, blocks: Mapping[int, int]) -> tuple[int, ...]:
        seats = [0] * self.slots
        for stay, count in blocks.items():
            seats[self.stays[0, stay]] = count
        return tuple(seats)


def _shared(found: Sequence[int], saved: int) -> int:
    """How many blocks have more than one holder, where those on board found `found` blocks at boarding.

    The least that anyone found is what all have in common. Of each shared block's holders all but one found
    it there, so `saved` blocks are at least `saved / len(found)` blocks.
    """
    if not saved or not found:
        return 0
    return min(saved, max(min(found), -(-saved // len(found))))


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


def _spans(trace: Trace, stays: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`SPAN_COLUMNS`; `stays` in order of request, `order` the places of the final one.

    Also, for each span, its place among the PREFILL and DECODE rows.
    """
    rows = _rows(trace, Kind.PREFILL, Kind.DECODE)
    if not len(rows["step"]) or not stays.shape[1]:
        return np.zeros((len(SPAN_COLUMNS), 0), np.int32), np.zeros(0, np.int64)
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
    by_stay = np.lexsort((spans[1], spans[2], spans[0]))
    return spans[:, by_stay], by_stay


def _capacity(trace: Trace) -> int:
    """Blocks that riders can hold. One is nobody's: the null block, which pads tables."""
    if not trace.header.num_blocks:
        return 0
    return max(trace.header.num_blocks - 1, int(trace.steps["free_blocks"].max(initial=0)))


def _blocks(trace: Trace, order: np.ndarray, span_rows: np.ndarray) -> dict[str, np.ndarray]:
    """The three tables of memory; `order` of the stays, `span_rows` the rows of the spans."""
    if not trace.header.num_blocks:
        names = {"stay_blocks": STAY_BLOCK_COLUMNS, "span_blocks": SPAN_BLOCK_COLUMNS}
        names |= {"step_blocks": STEP_BLOCK_COLUMNS}
        return {table: np.zeros((len(columns), 0), np.int32) for table, columns in names.items()}
    board, work = trace.rows(Kind.BOARD), _rows(trace, Kind.PREFILL, Kind.DECODE)
    cached = _prefix_blocks(board, trace.header.block_size)
    return {
        "stay_blocks": np.stack([board["blocks"], cached]).astype(np.int32)[:, order],
        "span_blocks": work["blocks"][None, span_rows].astype(np.int32),
        "step_blocks": trace.steps["free_blocks"][None].astype(np.int32),
    }


def _prefix_blocks(board: Mapping[str, np.ndarray], block_size: int) -> np.ndarray:
    """For each BOARD row, the prefix in blocks that it found: at most what its request found at any boarding.

    Who was put off finds, on coming back, blocks of its own as well.
    """
    blocks = board["tokens"] // max(1, block_size)
    fewest = np.full(int(board["request"].max(initial=0)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(fewest, board["request"][blocks > 0], blocks[blocks > 0])
    return np.minimum(blocks, fewest[board["request"]])


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


def _reasons(trace: Trace) -> np.ndarray:
    """`REASON_COLUMNS`, without the steps that are as the one before."""
    columns = np.stack([np.arange(trace.num_steps), *(trace.steps[name] for name in REASONS)]).astype(
        np.int32
    )
    is_new = (np.diff(columns[1:], axis=1, prepend=-1) != 0).any(axis=0)
    return columns[:, is_new]


def _arrivals(trace: Trace) -> np.ndarray:
    start = trace.steps["start"]
    return trace.requests["arrival_time"] - (start[0] if len(start) else 0.0)


def _clipped(words: Sequence[str], longest: int) -> tuple[str, ...]:
    return tuple(str(text)[:longest] for text in words)


def _times(trace: Trace) -> np.ndarray:
    start, duration = trace.steps["start"], trace.steps["duration"]
    if not len(start):
        return np.zeros(1)
    return np.append(start, start[-1] + duration[-1]) - start[0]
