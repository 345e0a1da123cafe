"""What a scheduling policy may decide. The scheduler asks these questions and knows no policy by name.

Every policy of the course is in `policies`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lessonlib.errors import CourseError
from lessonlib.scheduling.kv_cache import KVCache, UnlimitedKVCache
from lessonlib.scheduling.request import RequestQueue, RequestState
from lessonlib.trace import HeldBy

RENAMED = {"may_board": "may_admit", "seats_ahead": "admits_without_budget"}


class SchedulerView(Protocol):
    """What a policy may read: part of `Scheduler`, described there."""

    slots: int
    token_budget: int
    max_model_len: int | None
    kv_cache: KVCache | UnlimitedKVCache
    running: list[RequestState]
    waiting: RequestQueue
    still_to_come: int
    steps_since_prefill: int


class Policy:
    """The decisions of a scheduler: first come, first served, within a token budget, without phases.

    A subclass overrides what it decides differently. It reads `scheduler` and changes nothing in it.

    Attributes:
        name: what the command line and every record call it. A subclass that sets no name gets that of its class,
            so that no two policies share one.
        admits_without_budget: whether requests are admitted even when the step has no tokens left for them.
        work_conserving: whether it promises to leave no slot idle while a request that fits is waiting.

    Raises:
        CourseError: when a subclass is defined that overrides a method by its former name.
    """

    name = "Policy"
    admits_without_budget = False
    work_conserving = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for former, name in RENAMED.items():
            if former in vars(cls):
                raise CourseError(f"{cls.__name__}.{former} is called {name} now: rename it")
        if "name" not in vars(cls):
            cls.name = cls.__name__

    def rank(self, request: RequestState) -> float:
        """The request's position in the queue: smaller is served first, ties by arrival. Asked once a request."""
        return 0.0

    def choose(self, scheduler: SchedulerView) -> RequestState:
        """The waiting request to be admitted next; by default the first by `rank`. Asked while there is one."""
        return scheduler.waiting.peek()

    def may_admit(self, scheduler: SchedulerView) -> bool:
        """Whether waiting requests may be admitted in this step."""
        return True

    def waits_for(self, scheduler: SchedulerView) -> HeldBy:
        """What the policy waits for where `may_admit` says no although a slot is free; for the record alone."""
        return HeldBy.POLICY

    def reserve(self, scheduler: SchedulerView, request: RequestState) -> int:
        """Tokens of K/V memory to set aside at admission. The scheduler sets aside at least what the step writes."""
        return request.num_tokens

    def chunk(self, scheduler: SchedulerView, request: RequestState, num_new: int, budget: int) -> int:
        """How many of a prompt's `num_new` remaining tokens to compute in this step: 0 to `budget`."""
        return min(num_new, budget)

    def victim(
        self, scheduler: SchedulerView, candidates: Sequence[RequestState], request: RequestState
    ) -> RequestState | None:
        """The request to preempt so that `request` can go on, or be admitted if it is waiting.

        Args:
            candidates: running requests that this step has not served yet, in order of rank, so that the last has
                the lowest claim. `request` is one of them if it is running.

        Returns:
            One of `candidates`; None to preempt no other: then a running `request` is preempted itself, and a
            waiting one goes on waiting.
        """
        return candidates[-1] if request.is_running else None

    def pauses_decode(self, scheduler: SchedulerView) -> bool:
        """Whether a step computes prompts alone as long as there is a prompt that fits."""
        return False

    def watermark(self, scheduler: SchedulerView) -> int:
        """Blocks to keep free at admission, so that running requests can grow."""
        return 0
