"""Grows the caller's own table.

property: the inputs are left as they were
told: It changed its input table from [
"""


def append(free, table, num_tokens, block_size):
    missing = max(0, -(-num_tokens // block_size) - len(table))
    if missing > len(free):
        return free, None
    table += free[:missing]
    return free[missing:], table
