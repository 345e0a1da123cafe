"""Brings the values to one best and not the totals.

property: each piece counts in units of the larger best
told: came back
"""

import numpy as np


def combine(left, right):
    best = max(left[0], right[0])
    a, b = np.exp(left[0] - best), np.exp(right[0] - best)
    return (left[2] * a + right[2] * b) / (left[1] + right[1])
