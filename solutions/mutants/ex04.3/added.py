"""Adds minus infinity where a token is hidden: NaN stays NaN.

property: what a row may not see scores -inf
told: np.nan
"""

import numpy as np


def mask_tile(scores, values, first_token, last_visible, length):
    tokens = first_token + np.arange(scores.shape[1])
    hidden = tokens[None, :] > last_visible[:, None]
    return scores + np.where(hidden, -np.inf, 0.0), np.where((tokens < length)[:, None], values, 0.0)
