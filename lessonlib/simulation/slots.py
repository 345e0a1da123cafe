"""Layer 2: the slot scheduler, for as long as memory is no question.

Two forms that give the same Trace. `SlotScheduler` goes step by step and is there to be read; `ride` jumps
from one departure to the next and is there to be fast. One step gives one token to each request on board.
"""

from __future__ import annotations

import heapq

import numpy as np

from lessonlib.errors import CourseError
from lessonlib.scheduling.policies import Continuous, StaticBatching
from lessonlib.trace import NO_SLOT, Header, Kind, Trace, TraceBuilder
from lessonlib.utilization import check_slots
from lessonlib.workload import Workload

STATIC, CONTINUOUS = StaticBatching.name, Continuous.name
SLOT_POLICIES = (STATIC, CONTINUOUS)
NOBODY = -1


def check_policy(policy: str) -> str:
    """`policy` itself, or a `CourseError` that lists the ones there are."""
    if policy not in SLOT_POLICIES:
        raise CourseError(f"unknown policy {policy!r}: use {' or '.join(SLOT_POLICIES)}")
    return policy


def arrival_steps(workload: Workload) -> np.ndarray:
    """First step that can board each request, int64: the first to start at or after its arrival."""
    if workload.time_unit != "steps":
        raise CourseError(f"arrivals are in {workload.time_unit}: bring them to steps with Workload.in_steps")
    return np.ceil(workload.arrival_time).astype(np.int64)


class SlotScheduler:
    """The per-step form: evict, admit, step, until everyone is home.

    Args:
        workload: requests with arrivals in steps.
        slots: how many ride at once.
        policy: "static" boards only into an empty car; "continuous" refills any free slot.
        fill: static only: wait for a full car while more requests are still to come.
        header: of the Trace, where the default (a clock in steps) is not meant.

    Attributes:
        occupant: int64 `[slots]`, the request in each slot or -1.
        remaining: int64 `[slots]`, tokens that its occupant still wants.
        done: requests that have left.
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
        self.next_request = 0  # first in, first out: those before it have boarded
        self.done = 0
        header = header or Header(slots=slots, maker="slot scheduler", policy=policy)
        self.trace = TraceBuilder(header, workload.prompt_tokens, self.arrival)

    @property
    def waiting(self) -> int:
        """Requests that have arrived and have not boarded."""
        return int(np.searchsorted(self.arrival, self.trace.step, side="right")) - self.next_request

    def evict(self) -> int:
        """Whoever has reached their floor leaves and the slot is free. Returns how many left."""
        leaving = (self.occupant != NOBODY) & (self.remaining == 0)
        self.occupant[leaving] = NOBODY
        self.done += int(leaving.sum())
        return int(leaving.sum())

    def admit(self) -> list[int]:
        """Those who wait board the free slots, lowest slot first. Returns the slots just boarded."""
        free = np.flatnonzero(self.occupant == NOBODY)
        if self.policy == STATIC and not self._car_may_leave(len(free)):
            return []
        boarding = free[: self.waiting].tolist()
        for slot in boarding:
            request = self.next_request
            self.occupant[slot] = request
            self.remaining[slot] = self.workload.output_tokens[request]
            self.trace.add(Kind.BOARD, request, slot)
            self.next_request += 1
        return boarding

    def _car_may_leave(self, free: int) -> bool:
        if free < len(self.occupant):
            return False
        still_to_come = len(self.workload) - self.next_request
        return not self.fill or self.waiting >= min(free, still_to_come)

    def step(self, duration: float = 1.0) -> None:
        """Everyone on board gets one token. `duration` is in the clock of the Trace's header."""
        on_board = self.occupant != NOBODY
        self.remaining[on_board] -= 1
        for slot in np.flatnonzero(on_board):
            request = int(self.occupant[slot])
            self.trace.add(Kind.DECODE, request, int(slot), tokens=1)
            if self.remaining[slot] == 0:
                self.trace.add(Kind.FINISH, request, int(slot))
        self.trace.end_step(waiting=self.waiting, running=int(on_board.sum()), duration=duration)

    def run(self) -> Trace:
        """Ride until everyone is home."""
        for request, step in enumerate(self.arrival):
            self.trace.add(Kind.ARRIVE, request, step=int(step))
        while True:
            self.evict()
            if self.done == len(self.workload):
                return self.trace.build()
            self.admit()
            self.step()


def ride(workload: Workload, slots: int, policy: str = CONTINUOUS, fill: bool = False) -> Trace:
    """The event-driven form of `SlotScheduler(...).run()`: same arguments, same Trace, no steps in between.

    What is between two departures is known without looking, so the cost grows with requests and not with
    tokens.
    """
    check_policy(policy)
    check_slots(slots)
    arrival = arrival_steps(workload)
    if policy == STATIC:
        boarded, slot = _static_boarding(arrival, workload.output_tokens, slots, fill)
    elif arrival[-1] == 0:
        boarded, slot = _boarding_from_a_full_queue(workload.output_tokens, slots)
    else:
        boarded, slot = _boarding_as_they_come(arrival, workload.output_tokens, slots)
    header = Header(slots=slots, maker="slot scheduler", policy=policy)
    return _trace_of_boarding(header, workload, arrival, boarded, slot)


def _boarding_from_a_full_queue(lengths: np.ndarray, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Step and slot in which each request boards when all wait at step 0.

    A slot is one integer, `free_at * slots + slot`: the smallest is the slot that is free first, the lowest
    such slot on a tie. So one heap operation a request is all there is.
    """
    heap = list(range(slots))
    keys = np.array([heapq.heapreplace(heap, heap[0] + cost) for cost in (lengths * slots).tolist()])
    return keys // slots, keys % slots


def _boarding_as_they_come(
    arrival: np.ndarray, lengths: np.ndarray, slots: int
) -> tuple[np.ndarray, np.ndarray]:
    """The same with arrivals: several slots may stand free when a request comes; it takes the lowest."""
    free, busy = list(range(slots)), list[tuple[int, int]]()
    boarded, places = list[int](), list[int]()
    for arrives, length in zip(arrival.tolist(), lengths.tolist(), strict=True):
        step = arrives if free else max(arrives, busy[0][0])
        step = max(step, boarded[-1]) if boarded else step
        while busy and busy[0][0] <= step:
            heapq.heappush(free, heapq.heappop(busy)[1])
        slot = heapq.heappop(free)
        heapq.heappush(busy, (step + length, slot))
        boarded.append(step)
        places.append(slot)
    return np.array(boarded), np.array(places)


def _static_boarding(
    arrival: np.ndarray, lengths: np.ndarray, slots: int, fill: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Batch after batch: each boards when the car is empty and, with `fill`, when it can be filled."""
    count = len(lengths)
    boarded, places = np.empty(count, np.int64), np.empty(count, np.int64)
    first = step = 0
    while first < count:
        wait_for = min(first + slots, count) - 1 if fill else first
        step = max(step, int(arrival[wait_for]))
        last = min(first + slots, int(np.searchsorted(arrival, step, side="right")))
        boarded[first:last] = step
        places[first:last] = np.arange(last - first)
        step += int(lengths[first:last].max())
        first = last
    return boarded, places


def _trace_of_boarding(
    header: Header, workload: Workload, arrival: np.ndarray, boarded: np.ndarray, slot: np.ndarray
) -> Trace:
    """Four rows a request (arrive, board, decode, finish) and the counts of every step."""
    count, lengths = len(workload), workload.output_tokens
    last = boarded + lengths - 1
    kinds = np.array([Kind.ARRIVE, Kind.BOARD, Kind.DECODE, Kind.FINISH])
    step, place = np.empty((count, 4), np.int64), np.empty((count, 4), np.int64)
    tokens = np.zeros((count, 4), np.int64)
    step[:, 0], step[:, 1], step[:, 2], step[:, 3] = arrival, boarded, boarded, last
    place[:, 0], place[:, 1:] = NO_SLOT, slot[:, None]
    tokens[:, 2] = lengths
    num_steps = int(last.max()) + 1
    waiting, running, left = (
        np.bincount(at, minlength=num_steps + 1)[:num_steps] for at in (arrival, boarded, last + 1)
    )
    # In place: at half a million steps, fresh memory costs more than the arithmetic.
    np.cumsum(np.subtract(waiting, running, out=waiting), out=waiting)
    np.cumsum(np.subtract(running, left, out=running), out=running)
    return Trace(
        header=header,
        events={
            "step": step.ravel(),
            "request": np.repeat(np.arange(count), 4),
            "slot": place.ravel(),
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
        },
        requests={
            "prompt_tokens": workload.prompt_tokens,
            "arrival_time": arrival.astype(np.float64),
            "priority": workload.priority,
        },
    )
