"""Follows entries that the length does not need.

property: no call raises an error
told: IndexError
"""


def gather(cache, blocks, length):
    return cache[blocks].reshape(-1, cache.shape[2])[:length]
