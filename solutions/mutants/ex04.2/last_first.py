"""Returns the newest token first.

property: rows stand in the order of the tokens
told: came back
"""

import numpy as np


def gather(cache, blocks, length):
    tokens = np.arange(length)
    return cache[blocks[tokens // cache.shape[1]], tokens % cache.shape[1]][::-1]
