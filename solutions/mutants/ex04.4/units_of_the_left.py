"""Counts in units of the left piece, whichever is larger.

property: nothing overflows and nothing becomes NaN
told: came back
"""

import numpy as np


def combine(left, right):
    if not left[1]:
        return right[2] / right[1]
    shrink = np.exp(right[0] - left[0])
    return (left[2] + right[2] * shrink) / (left[1] + right[1] * shrink)
