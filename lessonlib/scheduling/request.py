"""One request as the scheduler sees it, by its counts and blocks; and the queue of those that wait."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from enum import Enum

from lessonlib.errors import CourseError
from lessonlib.trace import NO_SLOT


class RequestRejectedError(CourseError):
    """Raised for a request that could never run with these limits, when it is added."""


class RequestStatus(Enum):
    """The state of a request. A preempted one is WAITING again."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    ABORTED = "aborted"


@dataclass(slots=True, eq=False)
class RequestState:
    """What the scheduler knows of a request.

    Attributes:
        id: its name, unique among requests that are not done.
        prompt_tokens: tokens of its prompt, at least 1.
        max_tokens: output tokens after which it is finished at the latest.
        priority: smaller is served first, by policies that use it.
        arrival_step: first step that could admit it.
        order: its row in the Trace, in order of arrival.
        token_ids: ids of the prompt and the known output tokens; None where only counts are known. Used for prefix
            hashes alone.
        salt: requests share cached prefixes only with requests of the same salt.
        rank: its position in the queue, from `Policy.rank`; ties go to the one that came first.
        slot: the request slot it holds, -1 while it waits.
        block_table: ids of its K/V blocks in order of position.
        num_computed_tokens: tokens whose K/V is stored, or will be once the steps in flight have run.
        num_output_tokens: output tokens reported by `Scheduler.update`.
        num_pending_tokens: output tokens that steps in flight will report.
        prefill_target: tokens it had when it was admitted; until they are computed, it is prefilling.
        num_cached_tokens: tokens found in the prefix cache (or shared by a fork) when it was admitted.
        num_preemptions: how often it was preempted.
        block_hashes: hashes of its full blocks, as far as they have been needed.
        num_registered_blocks: leading blocks that the prefix cache can find.
    """

    id: str
    prompt_tokens: int
    max_tokens: int
    priority: int = 0
    arrival_step: int = 0
    order: int = 0
    token_ids: list[int] | None = None
    salt: str = ""
    rank: float = 0.0
    status: RequestStatus = RequestStatus.WAITING
    slot: int = NO_SLOT
    block_table: list[int] = field(default_factory=list)
    num_computed_tokens: int = 0
    num_output_tokens: int = 0
    num_pending_tokens: int = 0
    prefill_target: int = 0
    num_cached_tokens: int = 0
    num_preemptions: int = 0
    block_hashes: list[bytes] = field(default_factory=list)
    num_registered_blocks: int = 0

    @property
    def num_tokens(self) -> int:
        """Prompt and output tokens, those still to be reported included."""
        return self.prompt_tokens + self.num_output_tokens + self.num_pending_tokens

    @property
    def num_new_tokens(self) -> int:
        """Tokens still to be computed before the next one can be sampled."""
        return (
            self.prompt_tokens + self.num_output_tokens + self.num_pending_tokens - self.num_computed_tokens
        )

    @property
    def most_stored_tokens(self) -> int:
        """The most tokens of K/V it can store. The last output token is never read, so it is not stored."""
        return self.prompt_tokens + self.max_tokens - 1

    @property
    def is_prefilling(self) -> bool:
        """Whether tokens that it was admitted with are still to be computed."""
        return self.num_computed_tokens < self.prefill_target

    @property
    def is_exhausted(self) -> bool:
        """Whether the steps in flight will give its last token."""
        return self.num_output_tokens + self.num_pending_tokens >= self.max_tokens

    @property
    def is_running(self) -> bool:
        return self.status is RequestStatus.RUNNING

    @property
    def is_done(self) -> bool:
        """Whether it is finished or aborted."""
        return self.status is RequestStatus.FINISHED or self.status is RequestStatus.ABORTED

    def put_back(self, num_output_tokens: int, step: int) -> None:
        """In the queue from `step` on, with its first `num_output_tokens` output tokens and nothing computed."""
        self.num_preemptions += self.status is not RequestStatus.WAITING
        self.status, self.slot, self.block_table, self.block_hashes = RequestStatus.WAITING, NO_SLOT, [], []
        self.num_computed_tokens = self.num_pending_tokens = self.prefill_target = 0
        self.num_registered_blocks = 0
        self.num_output_tokens, self.arrival_step = num_output_tokens, min(self.arrival_step, step)
        if self.token_ids is not None:
            del self.token_ids[self.prompt_tokens + num_output_tokens :]

    @property
    def key(self) -> tuple[float, int]:
        """Sorts requests: the smallest is served first.

        A key never changes. So a preempted request returns to the front of its class, and the request with the
        smallest key always makes progress.
        """
        return self.rank, self.order


class RequestQueue:
    """Waiting requests by `RequestState.key`: a heap, so that to push or remove one takes O(log n)."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, RequestState]] = []
        self._members: dict[str, RequestState] = {}

    def __len__(self) -> int:
        return len(self._members)

    def push(self, request: RequestState) -> None:
        """Add a request."""
        heapq.heappush(self._heap, (*request.key, request))
        self._members[request.id] = request

    def peek(self) -> RequestState:
        """The first by key. The queue must not be empty."""
        while self._members.get((first := self._heap[0][2]).id) is not first:
            heapq.heappop(self._heap)
        return first

    def remove(self, request: RequestState) -> None:
        """Remove a waiting request. Its heap entry is dropped when it reaches the top."""
        self._members.pop(request.id, None)

    def in_order(self) -> list[RequestState]:
        """All waiting requests, the smallest key first. Takes a sort."""
        return sorted(self._members.values(), key=lambda request: request.key)
