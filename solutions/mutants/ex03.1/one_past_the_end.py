"""Skips the null block and counts one block that is not there.

property: no block is lost and none is held twice
told: free_list(num_blocks=2)
"""


def free_list(num_blocks):
    return list(range(1, num_blocks + 1))
