"""Waits for a block to become free.

property: every call comes back
told: No answer within
"""


def allocate(free, num_tokens, block_size):
    table = []
    while len(table) * block_size < num_tokens:
        table += free[:1]
        free = free[1:]
    return free, table
