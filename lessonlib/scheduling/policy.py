"""What a scheduling policy may decide. The scheduler asks these questions and knows no policy by name.

Every policy of the course is in `policies`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lessonlib.scheduling.kv_cache import KVCache, UnlimitedKVCache
from lessonlib.scheduling.request import RequestQueue, RequestState


class SchedulerView(Protocol):
    """What a policy may look at: part of `Scheduler`, described there."""

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

    A subclass overrides what it decides differently. `scheduler` is for reading only.

    Attributes:
        name: what the command line and every record call it. A subclass that sets none is called by the name of
            its class, so that no two policies share one.
        seats_ahead: whether requests board even when the step has no tokens left for them.
        work_conserving: whether it promises to leave no slot idle while something that fits is waiting.
    """

    name = "Policy"
    seats_ahead = False
    work_conserving = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" not in vars(cls):
            cls.name = cls.__name__

    def rank(self, request: RequestState) -> float:
        """The request's place in the queue, asked once; smaller boards first, ties by arrival."""
        return 0.0

    def may_board(self, scheduler: SchedulerView) -> bool:
        """Whether the doors open in this step."""
        return True

    def reserve(self, scheduler: SchedulerView, request: RequestState) -> int:
        """Tokens of K/V memory set aside when the request boards; what this step writes is the least."""
        return request.num_tokens

    def chunk(self, scheduler: SchedulerView, request: RequestState, num_new: int, budget: int) -> int:
        """How many of a prompt's `num_new` tokens to compute in this step, at most `budget`; 0: none yet."""
        return min(num_new, budget)

    def victim(
        self, scheduler: SchedulerView, candidates: Sequence[RequestState], request: RequestState
    ) -> RequestState | None:
        """Whom to throw out so that `request` can go on (or board, if it waits); None: nobody.

        `candidates` are on board and not yet served in this step, in order of rank; where `request` is on
        board, it is one of them. The last has the lowest claim, or came last.
        """
        return candidates[-1] if request.is_running else None

    def pauses_decode(self, scheduler: SchedulerView) -> bool:
        """Whether this step is for prompts alone, if there is one that can be read."""
        return False

    def watermark(self, scheduler: SchedulerView) -> int:
        """Blocks that stay free when a request boards, so that those on board can grow."""
        return 0
