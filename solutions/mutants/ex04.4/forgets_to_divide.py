"""Adds the values and leaves the totals out.

property: pieces with the same best add up
told: came back
"""

import numpy as np


def combine(left, right):
    if not left[1] or not right[1]:
        return (left[2] + right[2]) / (left[1] + right[1])
    best = max(left[0], right[0])
    return left[2] * np.exp(left[0] - best) + right[2] * np.exp(right[0] - best)
