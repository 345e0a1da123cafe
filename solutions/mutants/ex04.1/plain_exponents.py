"""Takes exponents of the scores as they are.

property: nothing overflows and nothing becomes NaN
told: 1000.0
"""

import numpy as np


def fold_tile(best, total, acc, scores, values):
    weights = np.exp(scores)
    return max(best, float(scores.max())), float(total * np.exp(best) + weights.sum()), acc + weights @ values
