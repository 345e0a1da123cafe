"""Reads the blocks in the order of memory.

property: rows stand in the order of the tokens
told: came back
"""

import numpy as np


def gather(cache, blocks, length):
    needed = np.sort(blocks[: -(-length // cache.shape[1])])
    tokens = np.arange(length)
    full = cache[needed[tokens // cache.shape[1]], tokens % cache.shape[1]]
    own = cache[blocks[tokens // cache.shape[1]], tokens % cache.shape[1]]
    return full if length % cache.shape[1] == 0 else own
