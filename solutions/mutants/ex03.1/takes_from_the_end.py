"""Takes the blocks that were freed last, and with them what others may still look for.

property: the block that has been free longest is handed out first
told: allocate(free=[
"""


def allocate(free, num_tokens, block_size):
    free, table = list(free), []
    needed = -(-num_tokens // block_size)
    if needed > len(free):
        return free, None
    while len(table) < needed:
        table.append(free.pop())
    return free, table
