"""Takes as many blocks as there are tokens.

property: a table has just the blocks that its tokens need
told: allocate(free=[
"""


def allocate(free, num_tokens, block_size):
    if num_tokens > len(free) * block_size:
        return free, None
    return free[num_tokens:], free[:num_tokens]
