"""Takes blocks for all tokens when a table grows, not for those that are new.

property: a table has just the blocks that its tokens need
told: append(free=
"""


def append(free, table, num_tokens, block_size):
    needed = -(-num_tokens // block_size)
    return (free, None) if needed > len(free) else (free[needed:], table + free[:needed])
