"""Brings both pieces to a best of zero.

property: nothing overflows and nothing becomes NaN
told: 1000.0
"""

import numpy as np


def combine(left, right):
    a, b = np.exp(left[0]), np.exp(right[0])
    return (left[2] * a + right[2] * b) / (left[1] * a + right[1] * b)
