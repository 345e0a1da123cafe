"""Reads the cache from its beginning.

property: no row is a neighbor's
told: came back
"""


def gather(cache, blocks, length):
    return cache.reshape(-1, cache.shape[2])[:length]
