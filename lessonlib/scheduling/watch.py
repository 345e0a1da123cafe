"""Overhearing, found from block tables alone: a request reads a block that another request wrote last.

A correct allocator never lets this happen, so the course's own is not watched: only a student's, or one that is
broken on purpose. The watch reads every block table in every step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from lessonlib.scheduling.block_pool import BlockPool
from lessonlib.scheduling.kv_cache import Copy, KVCache, UnlimitedKVCache
from lessonlib.scheduling.plan import ScheduledRequest


def is_foreign(kv_cache: KVCache | UnlimitedKVCache) -> bool:
    """Whether blocks are handed out by anything but the course's own allocator."""
    if isinstance(kv_cache, UnlimitedKVCache):
        return False
    return type(kv_cache) is not KVCache or type(kv_cache.pool) is not BlockPool


class TableWatch:
    """Remembers which request wrote each block last.

    Args:
        block_size: tokens a block.
    """

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self._writer: dict[int, int] = {}  # block -> row of the request in the Trace

    def overheard(
        self, rows: Sequence[ScheduledRequest], copies: Sequence[Copy]
    ) -> Iterator[tuple[int, int, int]]:
        """Yield (request, other, blocks) for each request that reads `blocks` blocks which `other` wrote last.

        Requests are rows of the Trace. Blocks found in the prefix cache at admission are meant to be shared and do
        not count.

        Args:
            rows: what the step computes.
            copies: the blocks that are copied before it.
        """
        for _, destination in copies:
            self._writer.pop(destination, None)
        for row in rows:
            for block in self._written(row):
                self._writer[block] = row.request.order
        for row in rows:
            own = row.request.order
            writers = Counter(self._writer.get(block, own) for block in self._read(row))
            del writers[own]
            for other, blocks in sorted(writers.items()):
                yield own, other, blocks

    def _written(self, row: ScheduledRequest) -> list[int]:
        first, end = row.num_computed_tokens // self.block_size, -(-row.seq_len // self.block_size)
        return row.block_table[first:end]

    def _read(self, row: ScheduledRequest) -> list[int]:
        shared = row.request.num_cached_tokens // self.block_size
        return row.block_table[shared : -(-row.seq_len // self.block_size)]
