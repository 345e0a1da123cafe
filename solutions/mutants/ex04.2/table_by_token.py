"""Takes an entry of the table for each token.

property: no call raises an error
told: IndexError
"""

import numpy as np


def gather(cache, blocks, length):
    tokens = np.arange(length)
    return cache[blocks[tokens], tokens % cache.shape[1]]
