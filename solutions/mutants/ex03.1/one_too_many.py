"""At the border of a block, takes the next one before anyone needs it.

property: a table has just the blocks that its tokens need
told: block_size=1
"""


def append(free, table, num_tokens, block_size):
    missing = max(0, num_tokens // block_size + 1 - len(table))
    return (free, None) if missing > len(free) else (free[missing:], table + free[:missing])
