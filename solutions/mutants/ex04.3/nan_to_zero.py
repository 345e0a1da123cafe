"""Makes zeros of NaN only: a neighbor is still heard.

property: values beyond the end are zero
told: 7.0
"""

import numpy as np


def mask_tile(scores, values, first_token, last_visible, length):
    tokens = first_token + np.arange(scores.shape[1])
    seen = tokens[None, :] <= last_visible[:, None]
    return np.where(seen, scores, -np.inf), np.nan_to_num(values)
