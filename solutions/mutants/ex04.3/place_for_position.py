"""Takes the place in the tile for the position, the wrong way.

property: a score that may be seen stays as it was
told: first_token=4
"""

import numpy as np


def mask_tile(scores, values, first_token, last_visible, length):
    tokens = 2 * first_token + np.arange(scores.shape[1])
    seen = tokens[None, :] <= last_visible[:, None]
    own = (first_token + np.arange(scores.shape[1]) < length)[:, None]
    return np.where(seen, scores, -np.inf), np.where(own, values, 0.0)
