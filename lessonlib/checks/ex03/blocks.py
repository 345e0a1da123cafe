"""Blocks as several tasks see them: how many a text needs, ids for a case, a pool in a given state."""

from __future__ import annotations

from random import Random

from lessonlib.scheduling.block_pool import BlockPool

LAST_FIRST = "freed blocks go to the end of the list, the last one first"


def blocks_for(tokens: int, block_size: int) -> int:
    return -(-tokens // block_size)


def block_ids(rng: Random, many: int) -> list[int]:
    """Block ids in any order, as after a while of use."""
    return rng.sample(range(1, 2 * many + 2), many)


def pool_with(free: list[int], table: list[int]) -> BlockPool:
    """A pool in which these blocks are free, in this order, and every block holds something worth finding."""
    pool = BlockPool(max([1, *free, *table]) + 1)
    for block in pool.allocate(pool.capacity):
        pool.register(block, str(block).encode())
    pool.free(free[::-1])
    return pool
