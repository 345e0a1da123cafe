"""From what vLLM's scheduler does to a `Trace`: who boards, who waits, who is thrown out, step by step.

vLLM has no slots: the lowest free one is given at boarding. This module knows nothing of vLLM; the scheduler
that tells it what happens is in `vllm_scheduler`.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lessonlib.trace import NO_SLOT, Header, Kind, Trace, TraceBuilder


@dataclass(frozen=True)
class Scheduled:
    """A request's part in a step.

    Attributes:
        tokens: that were scheduled for it.
        computed: tokens whose K/V it had before the step.
        known: tokens it had before the step, prompt and answer.
        blocks: K/V blocks it holds.
    """

    tokens: int
    computed: int
    known: int
    blocks: int


@dataclass(frozen=True)
class _Part:
    """What one request does in a planned step, as it stood when the step was planned."""

    slot: int
    prefill_tokens: int
    blocks: int


@dataclass(frozen=True)
class _Step:
    start: float
    waiting: int
    running: int
    free_blocks: int
    parts: Mapping[str, _Part]


class RideRecorder:
    """Writes one ride.

    Args:
        slots: most requests on board at once.
        header: what the Trace says of itself.

    Steps may be planned ahead of their results, as vLLM does on a GPU: `plan` is called when a step is
    scheduled, `report` when its tokens are there, in the same order.
    """

    def __init__(self, header: Header) -> None:
        self._start = time.perf_counter()
        self._trace = TraceBuilder(header, [], [])
        self._rows: dict[str, int] = {}  # request -> its row of the Trace
        self._free = list(range(header.slots))
        self._slots: dict[str, int] = {}
        self._targets: dict[str, int] = {}  # tokens to prefill before the next one is drawn
        self._planned: deque[_Step] = deque()
        self._num_planned, self._last_end = 0, 0.0

    def arrive(self, request: str, prompt_tokens: int) -> None:
        """A request joins the queue."""
        row = self._trace.add_request(prompt_tokens, self._now())
        self._rows[request] = row
        self._trace.add(Kind.ARRIVE, row, step=self._num_planned)

    def plan(
        self,
        scheduled: Mapping[str, Scheduled],
        preempted: Collection[str],
        waiting: int,
        running: int,
        free_blocks: int,
        started: float,
    ) -> None:
        """A step was scheduled; `started` is the reading of `time.perf_counter` before it was."""
        for request in preempted:
            self._trace.add(Kind.PREEMPT, self._rows[request], self._leave(request), step=self._num_planned)
        if not scheduled:
            return
        parts = {request: self._part(request, each) for request, each in scheduled.items()}
        self._planned.append(_Step(started - self._start, waiting, running, free_blocks, parts))
        self._num_planned += 1

    def report(self, given: Mapping[str, int], finished: Collection[str]) -> None:
        """The oldest planned step is done: tokens given to each request, and who has left."""
        step = self._planned.popleft()
        for request, part in step.parts.items():
            row = self._rows[request]
            if part.prefill_tokens:
                self._trace.add(Kind.PREFILL, row, part.slot, part.prefill_tokens, part.blocks)
            if given.get(request):
                self._trace.add(Kind.DECODE, row, part.slot, given[request], part.blocks)
        for request in finished:
            self._trace.add(Kind.FINISH, self._rows[request], self._leave(request))
        end = self._now()
        start = max(step.start, self._last_end)
        self._trace.end_step(step.waiting, step.running, step.free_blocks, start, end - start)
        self._last_end = end

    def build(self) -> Trace:
        """The record so far."""
        return self._trace.build()

    def _now(self) -> float:
        return time.perf_counter() - self._start

    def _part(self, request: str, each: Scheduled) -> _Part:
        if request not in self._slots:
            self._board(request, each)
        reads = each.tokens if each.computed < self._targets[request] else 0
        return _Part(self._slots[request], reads, each.blocks)

    def _board(self, request: str, each: Scheduled) -> None:
        slot = self._slots[request] = heapq.heappop(self._free)
        self._targets[request] = each.known
        row, step = self._rows[request], self._num_planned
        self._trace.add(Kind.BOARD, row, slot, each.computed, each.blocks, step=step)

    def _leave(self, request: str) -> int:
        """Its slot is free from now on. It has none where a token in flight was its last when it was thrown out."""
        slot = self._slots.pop(request, NO_SLOT)
        if slot != NO_SLOT:
            heapq.heappush(self._free, slot)
        return slot
