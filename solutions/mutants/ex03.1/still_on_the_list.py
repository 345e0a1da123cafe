"""Leaves the blocks on the free list, for the next request to find.

property: no block is lost and none is held twice
told: allocate(free=[
"""


def allocate(free, num_tokens, block_size):
    needed = -(-num_tokens // block_size)
    return (free, free[:needed]) if needed <= len(free) else (free, None)
