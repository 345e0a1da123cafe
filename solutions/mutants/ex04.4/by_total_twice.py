"""Weighs each sum of values by its total once more.

property: pieces with the same best add up
told: came back
"""

import numpy as np


def combine(left, right):
    best = max(left[0], right[0])
    a, b = left[1] * np.exp(left[0] - best), right[1] * np.exp(right[0] - best)
    return (left[2] * a + right[2] * b) / (a + b)
