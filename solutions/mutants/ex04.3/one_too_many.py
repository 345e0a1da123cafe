"""Hides the last visible token as well.

property: a score that may be seen stays as it was
told: -np.inf
"""

import numpy as np


def mask_tile(scores, values, first_token, last_visible, length):
    tokens = first_token + np.arange(scores.shape[1])
    seen = tokens[None, :] < last_visible[:, None]
    return np.where(seen, scores, -np.inf), np.where((tokens < length)[:, None], values, 0.0)
