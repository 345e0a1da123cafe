"""Puts block 0 on the free list with all others.

property: block 0 is never handed out
told: free_list(num_blocks=2)
"""


def free_list(num_blocks):
    return list(range(num_blocks))
