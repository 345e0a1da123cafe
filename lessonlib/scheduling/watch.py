"""Overhearing as a scheduler sees it: whose words stand in the blocks that a request reads.

A sound allocator never lets it happen, so only foreign ones are watched: a student's, or a broken one on
purpose. The watch costs a look at every block table in every step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from lessonlib.scheduling.block_pool import BlockPool
from lessonlib.scheduling.kv_cache import Copy, KVCache, UnlimitedKVCache
from lessonlib.scheduling.plan import ScheduledRequest


def is_foreign(kv_cache: KVCache | UnlimitedKVCache) -> bool:
    """Whether anything but the course's own allocator hands out blocks here."""
    if isinstance(kv_cache, UnlimitedKVCache):
        return False
    return type(kv_cache) is not KVCache or type(kv_cache.pool) is not BlockPool


class TableWatch:
    """Remembers who wrote each block last."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self._writer: dict[int, int] = {}  # block -> row of the request in the Trace

    def look(
        self, rows: Sequence[ScheduledRequest], copies: Sequence[Copy]
    ) -> Iterator[tuple[int, int, int]]:
        """(request, other, blocks) of each request that reads `blocks` blocks which `other` wrote last.

        Blocks found in the prefix cache at boarding are meant to be read by others and do not count.
        """
        for _, destination in copies:
            self._writer.pop(destination, None)
        for row in rows:
            for block in self._written(row):
                self._writer[block] = row.request.order
        for row in rows:
            own = row.request.order
            heard = Counter(self._writer.get(block, own) for block in self._read(row))
            del heard[own]
            for other, blocks in sorted(heard.items()):
                yield own, other, blocks

    def _written(self, row: ScheduledRequest) -> list[int]:
        first, end = row.num_computed_tokens // self.block_size, -(-row.seq_len // self.block_size)
        return row.block_table[first:end]

    def _read(self, row: ScheduledRequest) -> list[int]:
        meant = row.request.num_cached_tokens // self.block_size
        return row.block_table[meant : -(-row.seq_len // self.block_size)]
