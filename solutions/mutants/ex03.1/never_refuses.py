"""A slice takes what there is, and nobody is told that it was too little.

property: whoever fits gets a table, and nobody else does
told: was due    ([], None)
"""


def allocate(free, num_tokens, block_size):
    needed = -(-num_tokens // block_size)
    return free[needed:], free[:needed]
