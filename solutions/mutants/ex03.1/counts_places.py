"""Hands out places in the list in place of the blocks that stand there.

property: block 0 is never handed out
told: allocate(free=[
"""


def allocate(free, num_tokens, block_size):
    needed = -(-num_tokens // block_size)
    if needed > len(free):
        return free, None
    return free[needed:], list(range(needed))
