"""Takes place and block the wrong way round within a block.

property: rows stand in the order of the tokens
told: came back
"""

import numpy as np


def gather(cache, blocks, length):
    size = cache.shape[1]
    tokens = np.arange(length)
    own = min(size, length)
    return cache[blocks[tokens // size], np.where(tokens < own, own - 1 - tokens, tokens % size)]
