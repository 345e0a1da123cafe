"""Gives no block for tokens that do not fill one.

property: a table has just the blocks that its tokens need
told: allocate(free=[
"""


def append(free, table, num_tokens, block_size):
    missing = max(0, num_tokens // block_size - len(table))
    return (free, None) if missing > len(free) else (free[missing:], table + free[:missing])
