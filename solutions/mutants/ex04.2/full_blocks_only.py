"""Leaves out a last block that is not full.

property: one row for each token
told: length=1
"""


def gather(cache, blocks, length):
    full = length // cache.shape[1]
    return cache[blocks[:full]].reshape(-1, cache.shape[2])
