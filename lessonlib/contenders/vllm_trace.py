"""A `Trace` of vLLM's scheduler: which requests it admits, schedules and preempts in each step.

vLLM has no slots, so a request gets the lowest free one when it is admitted. This module does not import vLLM; the
scheduler that calls it is in `vllm_scheduler`.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lessonlib.trace import NO_SLOT, Header, HeldBy, Kind, Trace, TraceBuilder


@dataclass(frozen=True)
class Scheduled:
    """A request's share of a step.

    Attributes:
        tokens: scheduled in the step.
        computed: tokens whose K/V was stored before the step.
        known: tokens of prompt and answer before the step.
        blocks: K/V blocks that it holds.
    """

    tokens: int
    computed: int
    known: int
    blocks: int


@dataclass(frozen=True)
class QueueState:
    """What a step leaves of the queue, and what vLLM's scheduler came up against.

    Attributes:
        waiting, running: requests after the step was scheduled.
        most_running: vLLM's `max_num_seqs`.
        tokens, budget: scheduled in the step, and vLLM's `max_num_batched_tokens`.
        preempted: requests that were preempted for it.
        blocks_short: blocks that were missing where a waiting request was refused its K/V memory; 0 if none was.
    """

    waiting: int
    running: int
    most_running: int
    tokens: int
    budget: int
    preempted: int = 0
    blocks_short: int = 0

    @property
    def held_by(self) -> HeldBy:
        """Why the first in the queue was not admitted. vLLM admits none in a step that preempts."""
        reasons = (
            (not self.waiting, HeldBy.NOTHING),
            (self.preempted > 0, HeldBy.PREEMPTION),
            (self.running >= self.most_running, HeldBy.SLOTS),
            (self.tokens >= self.budget, HeldBy.BUDGET),
            (self.blocks_short > 0, HeldBy.BLOCKS),
        )
        return next((reason for applies, reason in reasons if applies), HeldBy.UNKNOWN)


@dataclass(frozen=True)
class _Share:
    """A request's share of a planned step, with what the Trace records of it."""

    slot: int
    prefill_tokens: int
    blocks: int


@dataclass(frozen=True)
class _Step:
    start: float
    queue: QueueState
    free_blocks: int
    shares: Mapping[str, _Share]


class TraceRecorder:
    """Records one Trace.

    Steps may be planned ahead of their results, as vLLM does on a GPU: `plan` is called when a step is
    scheduled, `report` when its tokens are there, in the same order.

    Args:
        header: of the Trace.
    """

    def __init__(self, header: Header) -> None:
        self._start = time.perf_counter()
        self._builder = TraceBuilder(header, [], [])
        self._rows: dict[str, int] = {}  # request -> its row of the Trace
        self._free = list(range(header.slots))
        self._slots: dict[str, int] = {}
        self._targets: dict[str, int] = {}  # tokens to compute before the next one is sampled
        self._planned: deque[_Step] = deque()
        self._num_planned, self._last_end = 0, 0.0

    def arrive(self, request: str, prompt_tokens: int) -> None:
        """Record that a request joined the queue."""
        row = self._builder.add_request(prompt_tokens, self._now())
        self._rows[request] = row
        self._builder.add(Kind.ARRIVE, row, step=self._num_planned)

    def plan(
        self,
        scheduled: Mapping[str, Scheduled],
        preempted: Collection[str],
        queue: QueueState,
        free_blocks: int,
        started: float,
    ) -> None:
        """Record a scheduled step.

        Args:
            scheduled: the share of each request in it.
            preempted: requests preempted for it.
            queue, free_blocks: after it was scheduled.
            started: `time.perf_counter()` before it was.
        """
        for request in preempted:
            self._builder.add(
                Kind.PREEMPT, self._rows[request], self._free_slot(request), step=self._num_planned
            )
        if not scheduled:
            return
        shares = {request: self._share(request, each) for request, each in scheduled.items()}
        self._planned.append(_Step(started - self._start, queue, free_blocks, shares))
        self._num_planned += 1

    def report(self, tokens: Mapping[str, int], finished: Collection[str]) -> None:
        """Record the results of the oldest planned step: output tokens of each request, and the finished ones."""
        step = self._planned.popleft()
        for request, share in step.shares.items():
            row = self._rows[request]
            if share.prefill_tokens:
                self._builder.add(Kind.PREFILL, row, share.slot, share.prefill_tokens, share.blocks)
            if tokens.get(request):
                self._builder.add(Kind.DECODE, row, share.slot, tokens[request], share.blocks)
        for request in finished:
            self._builder.add(Kind.FINISH, self._rows[request], self._free_slot(request))
        end = self._now()
        start = max(step.start, self._last_end)
        queue, held_by = step.queue, step.queue.held_by
        short = queue.blocks_short if held_by is HeldBy.BLOCKS else 0
        counts = queue.waiting, queue.running, step.free_blocks
        self._builder.end_step(*counts, start, end - start, held_by, short)
        self._last_end = end

    def build(self) -> Trace:
        """The record so far."""
        return self._builder.build()

    def _now(self) -> float:
        return time.perf_counter() - self._start

    def _share(self, request: str, each: Scheduled) -> _Share:
        if request not in self._slots:
            self._admit(request, each)
        prefill_tokens = each.tokens if each.computed < self._targets[request] else 0
        return _Share(self._slots[request], prefill_tokens, each.blocks)

    def _admit(self, request: str, each: Scheduled) -> None:
        slot = self._slots[request] = heapq.heappop(self._free)
        self._targets[request] = each.known
        row, step = self._rows[request], self._num_planned
        self._builder.add(Kind.BOARD, row, slot, each.computed, each.blocks, step=step)

    def _free_slot(self, request: str) -> int:
        """Free the request's slot and return it; -1 if it was preempted while its last token was in flight."""
        slot = self._slots.pop(request, NO_SLOT)
        if slot != NO_SLOT:
            heapq.heappush(self._free, slot)
        return slot
