"""Takes the blocks off the caller's own list.

property: the inputs are left as they were
told: It changed its input free from [
"""


def allocate(free, num_tokens, block_size):
    needed = -(-num_tokens // block_size)
    if needed > len(free):
        return free, None
    return free, [free.pop(0) for _ in range(needed)]
