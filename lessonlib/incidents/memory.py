"""Faults of memory: blocks that are lost, tables that do not fit, prefixes found too freely, a watermark ignored."""

from __future__ import annotations

from collections.abc import Sequence

from lessonlib.incidents.fault import Fault, Knobs, Plant
from lessonlib.incidents.load import (
    Load,
    crowded,
    impatient,
    long_prompts,
    shared_prefixes,
    tight,
    watermarked,
)
from lessonlib.scheduling.block_pool import BlockPool, block_hash
from lessonlib.scheduling.kv_cache import KVCache
from lessonlib.scheduling.plan import StepPlan
from lessonlib.scheduling.policies import VLLM
from lessonlib.scheduling.policy import SchedulerView
from lessonlib.scheduling.request import RequestState, RequestStatus
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.trace import Kind

MOST_LOST = 3  # blocks or tables that are lost, so that the others still come to an end
ALL = 1_000


class DoubleFreePool(BlockPool):
    """A broken pool: whatever is freed comes on the free list twice, so two requests are handed the same block.

    It is what happens when one path through a server frees a finished request and another frees it again.
    """

    def __init__(self, num_blocks: int, block_size: int = 16, seed: bytes | int | None = None) -> None:
        super().__init__(num_blocks, block_size, seed)
        self._again: list[int] = []

    def free(self, blocks: Sequence[int]) -> None:
        """Free the blocks, and remember them once too often."""
        held = [block for block in blocks if self.ref_counts[block]]
        super().free(list(dict.fromkeys(held)))  # it may have put a block into one table twice
        self._again += self.freed_again(held)

    def freed_again(self, blocks: list[int]) -> list[int]:
        """Those of the blocks just freed that are freed once more."""
        return blocks

    def allocate(self, count: int) -> list[int]:
        """Blocks that somebody else already got a second time, then honest ones."""
        handed_out_twice = [block for block in self._again if not self.is_free(block)][:count]
        self._again = [block for block in self._again if block not in handed_out_twice]
        return handed_out_twice + super().allocate(count - len(handed_out_twice))


class _LateDoubleFree(DoubleFreePool):
    """Frees twice from some occasion on."""

    knobs: Knobs

    def freed_again(self, blocks: list[int]) -> list[int]:
        return blocks if self.knobs.strikes() else []


class _Leak(Scheduler):
    """Loses the last blocks of a request as it leaves in one way: preempted, finished or aborted."""

    knobs: Knobs
    leaves_by: Kind
    blocks: int = 1
    lost = 0

    def _preempt(self, plan: StepPlan, request: RequestState, candidates: Sequence[RequestState]) -> None:
        if self.leaves_by is Kind.PREEMPT:
            self._lose_blocks(request)
        super()._preempt(plan, request, candidates)

    def _end(
        self, request: RequestState, status: RequestStatus, kind: Kind, step: int, slot: int | None = None
    ) -> None:
        if self.leaves_by is kind:
            self._lose_blocks(request)
        super()._end(request, status, kind, step, slot)

    def _lose_blocks(self, request: RequestState) -> None:
        if (
            request.block_table
            and self.lost < (1 if self.blocks == ALL else MOST_LOST)
            and self.knobs.strikes()
        ):
            self.lost += 1
            del request.block_table[-self.blocks :]


def _leak(load: Load, knobs: Knobs, leaves_by: Kind, blocks: int = 1) -> Scheduler:
    members = {"knobs": knobs, "leaves_by": leaves_by, "blocks": blocks}
    return load.scheduler(type("Leak", (_Leak,), members))


def _double_free(load: Load, knobs: Knobs) -> Scheduler:
    pool = _LateDoubleFree(load.num_blocks, load.block_size, seed=0)
    pool.knobs = knobs
    return load.scheduler(kv_cache=KVCache(pool))


class _Cache(KVCache):
    """An allocator with knobs."""

    def __init__(self, load: Load, knobs: Knobs) -> None:
        super().__init__(load.pool(), load.prompts is not None)
        self.knobs = knobs


class _Generous(_Cache):
    def allocate(self, request: RequestState, num_tokens: int, prefix: Sequence[int] = ()) -> None:
        more = self.knobs.size * self.block_size if self.knobs.strikes() else 0
        super().allocate(request, num_tokens + more, prefix)


class _OneBlock(_Cache):
    def allocate(self, request: RequestState, num_tokens: int, prefix: Sequence[int] = ()) -> None:
        long = num_tokens > self.block_size and self.knobs.strikes()
        super().allocate(request, self.block_size if long else num_tokens, prefix)


class _Late(_Cache):
    def has_room(self, request: RequestState, num_tokens: int) -> bool:
        if super().has_room(request, num_tokens):
            return True
        return super().has_room(request, num_tokens - 1) and self.knobs.strikes()


class _NoParent(_Cache):
    """Blocks are found by what is in them, whatever came before."""

    def _hash(self, request: RequestState, index: int) -> bytes:
        assert request.token_ids is not None
        first = index * self.block_size
        return block_hash(self._root(request.salt), request.token_ids[first : first + self.block_size])


class _NoTenant(_Cache):
    def _root(self, salt: str) -> bytes:
        return super()._root("")


class _LastTokenLeftOut(_Cache):
    def _hash(self, request: RequestState, index: int) -> bytes:
        assert request.token_ids is not None
        digest, size = self._root(request.salt), self.block_size
        for at in range(index + 1):
            digest = block_hash(digest, request.token_ids[at * size : at * size + size - 1])
        return digest


class _Early(_Cache):
    """Blocks are found as soon as they are taken, before anything is stored in them."""

    def allocate(self, request: RequestState, num_tokens: int, prefix: Sequence[int] = ()) -> None:
        super().allocate(request, num_tokens, prefix)
        self.commit(request, num_tokens)


class _CountsItsAnswer(Scheduler):
    """Takes the answer of a request that comes back for stored."""

    def _computed_at_admission(self, request: RequestState, prefix: Sequence[int]) -> int:
        again = request.num_output_tokens if request.num_preemptions else 0
        return super()._computed_at_admission(request, prefix) + again


class _Watermark(VLLM):
    """Keeps the watermark for a while, and then does not."""

    def __init__(self, load: Load, knobs: Knobs) -> None:
        super().__init__()
        self.blocks, self.knobs = load.watermark, knobs

    def watermark(self, scheduler: SchedulerView) -> int:
        arrived = len(scheduler.waiting) + len(scheduler.running)
        return self.blocks if arrived <= self.knobs.after else self.broken(scheduler)

    def broken(self, scheduler: SchedulerView) -> int:
        """What is kept free instead."""
        return 0


class _WatermarkOnce(_Watermark):
    """Keeps the watermark from the first to board in a step, and from no one after it."""

    asked_in = -1

    def broken(self, scheduler: SchedulerView) -> int:
        assert isinstance(scheduler, Scheduler)
        again, self.asked_in = self.asked_in == scheduler.next_step, scheduler.next_step
        return 0 if again else self.blocks


class _WatermarkBefore(_Watermark):
    """Looks at the free blocks before the newcomer has taken its own."""

    def broken(self, scheduler: SchedulerView) -> int:
        newcomer = scheduler.waiting.peek()
        return max(0, self.blocks - scheduler.kv_cache.blocks_for(newcomer.num_tokens))


def _with_cache(cache: type[_Cache]) -> Plant:
    return lambda load, knobs: load.scheduler(kv_cache=cache(load, knobs))


def _with_watermark(policy: type[_Watermark]) -> Plant:
    return lambda load, knobs: load.scheduler(policy=policy(load, knobs))


def _leaking(leaves_by: Kind, blocks: int = 1) -> Plant:
    return lambda load, knobs: _leak(load, knobs, leaves_by, blocks)


GAUGE = "The gauge of free memory does not agree with what riders carry."
CUT = "Answers go wrong in the middle, where the text gets longer."
MINGLED = "The first words of an answer fit another rider's question."
STALLS = "Whoever is on board is thrown out more often than the plan for the memory says."

FAULTS = (
    Fault("a preemption loses a block", "blocks", GAUGE, tight, _leaking(Kind.PREEMPT)),
    Fault("a finished request leaves a block behind", "blocks", GAUGE, tight, _leaking(Kind.FINISH)),
    Fault(
        "a finished request leaves all its blocks behind",
        "blocks",
        GAUGE,
        crowded,
        _leaking(Kind.FINISH, ALL),
    ),
    Fault(
        "a request that gives up leaves its blocks behind",
        "blocks",
        GAUGE,
        impatient,
        _leaking(Kind.ABORT, ALL),
    ),
    Fault("blocks are freed twice", "blocks", GAUGE, tight, _double_free),
    Fault(
        "a request takes blocks that it has no tokens for",
        "tables",
        STALLS,
        long_prompts,
        _with_cache(_Generous),
    ),
    Fault(
        "a prompt boards with one block, however long it is",
        "tables",
        CUT,
        long_prompts,
        _with_cache(_OneBlock),
    ),
    Fault("a table grows one step late", "tables", CUT, long_prompts, _with_cache(_Late)),
    Fault(
        "a block's hash leaves out the blocks before it",
        "prefixes",
        MINGLED,
        shared_prefixes,
        _with_cache(_NoParent),
    ),
    Fault(
        "a block's hash leaves out the tenant", "prefixes", MINGLED, shared_prefixes, _with_cache(_NoTenant)
    ),
    Fault(
        "a block's hash leaves out its last token",
        "prefixes",
        MINGLED,
        shared_prefixes,
        _with_cache(_LastTokenLeftOut),
    ),
    Fault("a block is found before it is stored", "prefixes", MINGLED, shared_prefixes, _with_cache(_Early)),
    Fault(
        "a request that comes back takes its answer for stored",
        "prefixes",
        MINGLED,
        tight,
        lambda load, knobs: load.scheduler(_CountsItsAnswer),
    ),
    Fault("the watermark is forgotten", "watermark", STALLS, watermarked, _with_watermark(_Watermark)),
    Fault(
        "the watermark is kept from the first to board in a step alone",
        "watermark",
        STALLS,
        watermarked,
        _with_watermark(_WatermarkOnce),
    ),
    Fault(
        "the watermark is looked at before the newcomer has its blocks",
        "watermark",
        STALLS,
        watermarked,
        _with_watermark(_WatermarkBefore),
    ),
)
