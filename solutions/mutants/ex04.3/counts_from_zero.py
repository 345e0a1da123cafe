"""Takes the place in the tile for the position.

property: what a row may not see scores -inf
told: first_token=4
"""

import numpy as np


def mask_tile(scores, values, first_token, last_visible, length):
    places = np.arange(scores.shape[1])
    seen = places[None, :] <= last_visible[:, None]
    own = (first_token + places < length)[:, None]
    return np.where(seen & own.T, scores, -np.inf), np.where(own, values, 0.0)
