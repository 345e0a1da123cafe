"""Shrinks the total and not the values.

property: acc follows the same weights as total
told: came back
"""

import numpy as np


def fold_tile(best, total, acc, scores, values):
    new_best = max(best, float(scores.max()))
    anchor = 0.0 if new_best == -np.inf else new_best
    weights = np.exp(scores - anchor)
    return new_best, float(total * np.exp(best - anchor) + weights.sum()), acc + weights @ values
