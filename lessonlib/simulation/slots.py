"""The slot scheduler of notebooks 01 and 02: a fixed number of slots, and memory without limit.

It has two forms that give the same Trace. `SlotScheduler` goes step by step and is written to be read; `ride` jumps
from one finished request to the next and is written to be fast. A step gives one token to each running request.
"""

from __future__ import annotations

import heapq

import numpy as np

from lessonlib.errors import CourseError
from lessonlib.scheduling.policies import Continuous, StaticBatching
from lessonlib.trace import NO_SLOT, Header, HeldBy, Kind, Trace, TraceBuilder
from lessonlib.utilization import check_slots
from lessonlib.workload import Workload

STATIC, CONTINUOUS = StaticBatching.name, Continuous.name
SLOT_POLICIES = (STATIC, CONTINUOUS)
NOBODY = -1


def check_policy(policy: str) -> str:
    """`policy` itself, or a `CourseError` that lists the known ones."""
    if policy not in SLOT_POLICIES:
        raise CourseError(f"unknown policy {policy!r}: use {' or '.join(SLOT_POLICIES)}")
    return policy


def arrival_steps(workload: Workload) -> np.ndarray:
    """The first step that can admit each request, int64 `[requests]`: the first to start at or after its arrival."""
    if workload.time_unit != "steps":
        raise CourseError(f"arrivals are in {workload.time_unit}: bring them to steps with Workload.in_steps")
    return np.ceil(workload.arrival_time).astype(np.int64)


class SlotScheduler:
    """The form that goes step by step: release, admit, step, until every request is finished.

    Args:
        workload: requests with arrivals in steps.
        slots: how many requests run at once.
        policy: "static" admits only when all slots are free; "continuous" refills any free slot.
        fill: static only: wait until all slots can be filled, while more requests are still to come.
        header: of the Trace; by default its clock counts steps.

    Attributes:
        occupant: int64 `[slots]`, the request in each slot or -1.
        remaining: int64 `[slots]`, tokens that its occupant still needs.
        done: number of finished requests.
        trace_builder: records every step.
    """

    def __init__(
        self,
        workload: Workload,
        slots: int,
        policy: str = CONTINUOUS,
        fill: bool = False,
        header: Header | None = None,
    ) -> None:
        self.workload, self.policy, self.fill = workload, check_policy(policy), fill
        self.arrival = arrival_steps(workload)
        self.occupant = np.full(check_slots(slots), NOBODY)
        self.remaining = np.zeros(slots, np.int64)
        self.next_request = 0  # first in, first out: those before it have been admitted
        self.done = 0
        header = header or Header(slots=slots, maker="slot scheduler", policy=policy)
        self.trace_builder = TraceBuilder(header, workload.prompt_tokens, self.arrival)

    @property
    def waiting(self) -> int:
        """Requests that have arrived and have not been admitted."""
        arrived = int(np.searchsorted(self.arrival, self.trace_builder.step, side="right"))
        return arrived - self.next_request

    def release(self) -> int:
        """Free the slots of finished requests. Returns how many finished."""
        leaving = (self.occupant != NOBODY) & (self.remaining == 0)
        self.occupant[leaving] = NOBODY
        self.done += int(leaving.sum())
        return int(leaving.sum())

    def admit(self) -> list[int]:
        """Give the free slots to waiting requests, lowest slot first. Returns the slots just filled."""
        free = np.flatnonzero(self.occupant == NOBODY)
        if self.policy == STATIC and not self._batch_may_start(len(free)):
            return []
        filled = free[: self.waiting].tolist()
        for slot in filled:
            request = self.next_request
            self.occupant[slot] = request
            self.remaining[slot] = self.workload.output_tokens[request]
            self.trace_builder.add(Kind.BOARD, request, slot)
            self.next_request += 1
        return filled

    def _batch_may_start(self, free: int) -> bool:
        if free < len(self.occupant):
            return False
        still_to_come = len(self.workload) - self.next_request
        return not self.fill or self.waiting >= min(free, still_to_come)

    def step(self, duration: float = 1.0) -> None:
        """Give one token to each running request. `duration` is in the clock of the Trace's header."""
        running = self.occupant != NOBODY
        self.remaining[running] -= 1
        for slot in np.flatnonzero(running):
            request = int(self.occupant[slot])
            self.trace_builder.add(Kind.DECODE, request, int(slot), tokens=1)
            if self.remaining[slot] == 0:
                self.trace_builder.add(Kind.FINISH, request, int(slot))
        self.trace_builder.end_step(
            waiting=self.waiting, running=int(running.sum()), duration=duration, held_by=self.held_by
        )

    @property
    def held_by(self) -> HeldBy:
        """Why the first of the waiting requests was not admitted in this step."""
        free = int((self.occupant == NOBODY).sum())
        if not self.waiting:
            return HeldBy.NOTHING
        if not free:
            return HeldBy.SLOTS
        return HeldBy.BATCH if free < len(self.occupant) else HeldBy.MORE_REQUESTS

    def run(self) -> Trace:
        """Run until every request is finished."""
        for request, step in enumerate(self.arrival):
            self.trace_builder.add(Kind.ARRIVE, request, step=int(step))
        while True:
            self.release()
            if self.done == len(self.workload):
                return self.trace_builder.build()
            self.admit()
            self.step()


def ride(workload: Workload, slots: int, policy: str = CONTINUOUS, fill: bool = False) -> Trace:
    """The event-driven form of `SlotScheduler(...).run()`, with the same arguments and the same Trace.

    Nothing changes between one finished request and the next, so the cost grows with requests and not with tokens.
    """
    check_policy(policy)
    check_slots(slots)
    arrival = arrival_steps(workload)
    if policy == STATIC:
        admitted, slot = _admission_in_batches(arrival, workload.output_tokens, slots, fill)
    elif arrival[-1] == 0:
        admitted, slot = _admission_from_a_full_queue(workload.output_tokens, slots)
    else:
        admitted, slot = _admission_as_they_come(arrival, workload.output_tokens, slots)
    header = Header(slots=slots, maker="slot scheduler", policy=policy)
    return _trace_of_admission(header, workload, arrival, admitted, slot)


def _admission_from_a_full_queue(lengths: np.ndarray, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Step and slot in which each request is admitted when all wait at step 0, int64 `[requests]` each.

    A slot is one integer, `free_at * slots + slot`: the smallest is the slot that is free first, and on a tie the
    lowest of them. So each request takes a single heap operation.
    """
    heap = list(range(slots))
    keys = np.array([heapq.heapreplace(heap, heap[0] + cost) for cost in (lengths * slots).tolist()])
    return keys // slots, keys % slots


def _admission_as_they_come(
    arrival: np.ndarray, lengths: np.ndarray, slots: int
) -> tuple[np.ndarray, np.ndarray]:
    """The same with arrivals: a request takes the lowest of the slots that are free when it comes."""
    free, busy = list(range(slots)), list[tuple[int, int]]()
    admitted, taken = list[int](), list[int]()
    for arrives, length in zip(arrival.tolist(), lengths.tolist(), strict=True):
        step = arrives if free else max(arrives, busy[0][0])
        step = max(step, admitted[-1]) if admitted else step
        while busy and busy[0][0] <= step:
            heapq.heappush(free, heapq.heappop(busy)[1])
        slot = heapq.heappop(free)
        heapq.heappush(busy, (step + length, slot))
        admitted.append(step)
        taken.append(slot)
    return np.array(admitted), np.array(taken)


def _admission_in_batches(
    arrival: np.ndarray, lengths: np.ndarray, slots: int, fill: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The same in batches: each is admitted when all slots are free and, with `fill`, when all can be filled."""
    count = len(lengths)
    admitted, slot = np.empty(count, np.int64), np.empty(count, np.int64)
    first = step = 0
    while first < count:
        wait_for = min(first + slots, count) - 1 if fill else first
        step = max(step, int(arrival[wait_for]))
        last = min(first + slots, int(np.searchsorted(arrival, step, side="right")))
        admitted[first:last] = step
        slot[first:last] = np.arange(last - first)
        step += int(lengths[first:last].max())
        first = last
    return admitted, slot


def _trace_of_admission(
    header: Header, workload: Workload, arrival: np.ndarray, admitted: np.ndarray, slot: np.ndarray
) -> Trace:
    """Four rows a request (ARRIVE, BOARD, DECODE, FINISH) and the counts of every step."""
    count, lengths = len(workload), workload.output_tokens
    last = admitted + lengths - 1
    kinds = np.array([Kind.ARRIVE, Kind.BOARD, Kind.DECODE, Kind.FINISH])
    step, slots = np.empty((count, 4), np.int64), np.empty((count, 4), np.int64)
    tokens = np.zeros((count, 4), np.int64)
    step[:, 0], step[:, 1], step[:, 2], step[:, 3] = arrival, admitted, admitted, last
    slots[:, 0], slots[:, 1:] = NO_SLOT, slot[:, None]
    tokens[:, 2] = lengths
    num_steps = int(last.max()) + 1
    waiting, running, left = (
        np.bincount(at, minlength=num_steps + 1)[:num_steps] for at in (arrival, admitted, last + 1)
    )
    # In place: at half a million steps, fresh memory costs more than the arithmetic.
    np.cumsum(np.subtract(waiting, running, out=waiting), out=waiting)
    np.cumsum(np.subtract(running, left, out=running), out=running)
    held_by = np.where(waiting > 0, int(HeldBy.SLOTS), int(HeldBy.NOTHING))
    if header.policy == STATIC:  # the other policy never leaves a slot free while a request waits
        held_by[(waiting > 0) & (running < header.slots)] = HeldBy.BATCH
        held_by[(waiting > 0) & (running == 0)] = HeldBy.MORE_REQUESTS
    return Trace(
        header=header,
        events={
            "step": step.ravel(),
            "request": np.repeat(np.arange(count), 4),
            "slot": slots.ravel(),
            "kind": np.tile(kinds, count),
            "tokens": tokens.ravel(),
            "blocks": np.broadcast_to(0, count * 4),
        },
        steps={
            "start": np.arange(num_steps, dtype=np.float64),
            "duration": np.broadcast_to(1.0, num_steps),
            "waiting": waiting,
            "running": running,
            "free_blocks": np.broadcast_to(0, num_steps),
            "held_by": held_by,
            "blocks_short": np.broadcast_to(0, num_steps),
        },
        requests={
            "prompt_tokens": workload.prompt_tokens,
            "arrival_time": arrival.astype(np.float64),
            "priority": workload.priority,
        },
    )
