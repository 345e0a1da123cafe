"""Shrinks the piece with the larger best.

property: each piece counts in units of the larger best
told: came back
"""

import numpy as np


def combine(left, right):
    if not left[1] or not right[1]:
        return (left[2] + right[2]) / (left[1] + right[1])
    best = max(left[0], right[0])
    b, a = np.exp(left[0] - best), np.exp(right[0] - best)
    return (left[2] * a + right[2] * b) / (left[1] * a + right[1] * b)
