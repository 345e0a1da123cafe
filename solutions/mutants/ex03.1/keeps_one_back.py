"""Refuses whoever needs the last block.

property: whoever fits gets a table, and nobody else does
told: 1 token in blocks of 1 are 1 block, 1 free
"""


def allocate(free, num_tokens, block_size):
    needed = -(-num_tokens // block_size)
    return (free[needed:], free[:needed]) if needed < len(free) else (free, None)
