"""Puts the new block before the old ones: every position moves.

property: a table grows at its end
told: append(free=
"""


def append(free, table, num_tokens, block_size):
    missing = max(0, -(-num_tokens // block_size) - len(table))
    return (free, None) if missing > len(free) else (free[missing:], free[:missing] + table)
