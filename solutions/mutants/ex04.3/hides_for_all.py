"""Hides from every row what one of them may not see.

property: values within the length stay as they were
told: came back
"""

import numpy as np


def mask_tile(scores, values, first_token, last_visible, length):
    tokens = first_token + np.arange(scores.shape[1])
    seen = tokens[None, :] <= last_visible[:, None]
    return np.where(seen, scores, -np.inf), np.where(seen.all(0)[:, None], values, 0.0)
