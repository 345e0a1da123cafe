"""Adds the new weights to the old total as it was.

property: total counts every weight in units of the new best
told: came back
"""

import numpy as np


def fold_tile(best, total, acc, scores, values):
    new_best = max(best, float(scores.max()))
    anchor = 0.0 if new_best == -np.inf else new_best
    weights = np.exp(scores - anchor)
    return new_best, float(total + weights.sum()), acc * np.exp(best - anchor) + weights @ values
