"""Leaves out a last block that is not full.

property: the answer has the right form
told: The answer has no rows
"""


def gather(cache, blocks, length):
    full = length // cache.shape[1]
    return cache[blocks[:full]].reshape(-1, cache.shape[2])
