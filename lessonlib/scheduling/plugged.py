"""A student's functions in place of the scheduler's own: the allocator, admission and preemption of exercise 03.

    parts = plug(my_ex03)          # a module, or any object that has the functions
    LLM(scheduler_cls=parts.scheduler_cls, kv_cache_cls=parts.kv_cache_cls)

The functions decide; nothing they return is checked or corrected here. A function that is missing leaves its
decision to the course.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lessonlib.scheduling.block_pool import BlockPool
from lessonlib.scheduling.kv_cache import Copy, KVCache
from lessonlib.scheduling.plan import StepPlan
from lessonlib.scheduling.request import RequestState
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.trace import HeldBy

ALLOCATOR = ("free_list", "allocate", "append", "release")


class Parts(NamedTuple):
    """Classes for `LLM`, and the names of the functions that are used in them."""

    scheduler_cls: type[Scheduler]
    kv_cache_cls: Callable[..., Any]
    in_use: tuple[str, ...]


def plug(functions: Any) -> Parts:
    """A scheduler and an allocator that call the functions of exercise 03 which `functions` has.

    Args:
        functions: has any of `free_list`, `allocate`, `append` and `release` (ex03.1; used only if all four are
            there), `admit` (ex03.2) and `preempt` (ex03.3).
    """
    allocator = all(hasattr(functions, name) for name in ALLOCATOR)
    decisions = tuple(name for name in ("admit", "preempt") if hasattr(functions, name))

    class Plugged(PluggedScheduler):
        student = functions

    def kv_cache(pool: BlockPool, prefix_caching: bool = False) -> KVCache | PluggedKVCache:
        return PluggedKVCache(functions, pool) if allocator else KVCache(pool, prefix_caching)

    return Parts(Plugged, kv_cache, (*(ALLOCATOR if allocator else ()), *decisions))


class PluggedKVCache:
    """`KVCache` without prefix caching, by the functions of ex03.1: a list of free blocks, and block tables.

    Args:
        functions: has `free_list`, `allocate`, `append` and `release`.
        pool: gives the number and the size of the blocks, and nothing else.
    """

    prefix_caching = False

    def __init__(self, functions: Any, pool: BlockPool) -> None:
        self._functions = functions
        self.num_blocks, self.block_size = pool.num_blocks, pool.block_size
        self.free_blocks: list[int] = functions.free_list(pool.num_blocks)
        self.capacity = len(self.free_blocks)

    @property
    def num_free(self) -> int:
        return len(self.free_blocks)

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def cached_prefix(self, request: RequestState) -> list[int]:
        return []

    def blocks_short(self, num_tokens: int, prefix: Sequence[int] = (), watermark: int = 0) -> int:
        """0 where the student's `allocate` gives a table, else the blocks that are missing: at least 1."""
        kept = self.free_blocks[: max(0, self.num_free - watermark)]
        if self._functions.allocate(kept, num_tokens, self.block_size)[1] is not None:
            return 0
        return max(1, self.blocks_for(num_tokens) + watermark - self.num_free)

    def allocate(self, request: RequestState, num_tokens: int, prefix: Sequence[int] = ()) -> None:
        self.free_blocks, table = self._functions.allocate(self.free_blocks, num_tokens, self.block_size)
        request.block_table = list(table)

    def has_room(self, request: RequestState, num_tokens: int) -> bool:
        return num_tokens <= len(request.block_table) * self.block_size

    def can_append(self, request: RequestState, num_tokens: int) -> bool:
        return self._grown(request, num_tokens)[1] is not None

    def append(self, request: RequestState, num_tokens: int) -> list[Copy]:
        self.free_blocks, request.block_table = self._grown(request, num_tokens)
        return []

    def _grown(self, request: RequestState, num_tokens: int) -> tuple[list[int], Any]:
        free_blocks, table = self._functions.append(
            self.free_blocks, request.block_table, num_tokens, self.block_size
        )
        return free_blocks, table

    def fork(self, parent: RequestState, child: RequestState, num_tokens: int) -> None:
        """Shares no blocks: the child starts with no token computed."""
        child.num_computed_tokens = 0

    def commit(self, request: RequestState, num_computed: int) -> None:
        """Does nothing: there is no prefix cache."""

    def free(self, request: RequestState) -> None:
        self.free_blocks = self._functions.release(self.free_blocks, request.block_table)
        request.block_table = []


class PluggedScheduler(Scheduler):
    """`Scheduler` in which `student.admit` decides on admission and `student.preempt` on preemption."""

    student: Any = None

    def _serve(self, plan: StepPlan, order: list[RequestState]) -> None:
        if hasattr(self.student, "preempt"):
            self._preempt_by_student(plan)
        super()._serve(plan, order)

    def _preempt_by_student(self, plan: StepPlan) -> None:
        running = {request.order: request for request in self.running}
        rows = [self._row(request) for request in self.running]
        stays, _, _ = self.student.preempt(rows, [], self._free_ids(), self.kv_cache.block_size)
        for order in running.keys() - {row["id"] for row in stays}:
            self._preempt(plan, running[order], self.running)

    def _free_ids(self) -> list[int]:
        """As many ids as there are free blocks: `preempt` only counts them."""
        return list(range(1, self.kv_cache.num_free + 1))

    @staticmethod
    def _row(request: RequestState) -> dict[str, Any]:
        return {
            "id": request.order,
            "prompt": request.prompt_tokens,
            "generated": request.num_output_tokens + request.num_pending_tokens,
            "computed": request.num_computed_tokens,
            "table": list(request.block_table),
        }

    def _admit_waiting(self, plan: StepPlan) -> None:
        if not hasattr(self.student, "admit"):
            super()._admit_waiting(plan)
            return
        queue = self.waiting.in_order()
        sizes = [request.num_tokens for request in queue]
        admitted, _, _ = self.student.admit(
            list(range(len(queue))),
            sizes,
            len(self.running),
            self.slots,
            self.kv_cache.num_free,
            self.kv_cache.num_blocks,
            self.kv_cache.block_size,
            self.policy.watermark(self),
            plan.budget + len(self.running),
        )
        for index, tokens in admitted:
            self._admit_by_student(plan, queue[index], tokens)
        plan.held_by = self._held_by_student(plan)

    def _held_by_student(self, plan: StepPlan) -> HeldBy:
        """What the course's scheduler would name; where it would admit the request, the student's `admit` waits."""
        if not self.waiting:
            return HeldBy.NOTHING
        if not self.num_free_slots:
            return HeldBy.SLOTS
        tokens = self.waiting.peek().num_tokens
        return self._held_by(plan, min(tokens, plan.budget), tokens, ()) or HeldBy.POLICY

    def _admit_by_student(self, plan: StepPlan, request: RequestState, tokens: int) -> None:
        self.waiting.remove(request)
        self.kv_cache.allocate(request, request.num_tokens)
        (plan.resumed if request.num_preemptions else plan.admitted).append(request)
        self._start(request, 0)
        self._schedule_tokens(plan, request, tokens)
