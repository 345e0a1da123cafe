"""Divides and rounds nothing: a part of a block.

property: no call raises an error
told: TypeError: slice indices must be integers
"""


def allocate(free, num_tokens, block_size):
    needed = num_tokens / block_size
    return (free[needed:], free[:needed]) if needed <= len(free) else (free, None)
