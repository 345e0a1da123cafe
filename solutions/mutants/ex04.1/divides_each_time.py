"""Divides by the total after every tile.

property: acc follows the same weights as total
told: came back
"""

import numpy as np


def fold_tile(best, total, acc, scores, values):
    new_best = max(best, float(scores.max()))
    anchor = 0.0 if new_best == -np.inf else new_best
    weights, correction = np.exp(scores - anchor), np.exp(best - anchor)
    total = float(total * correction + weights.sum())
    return new_best, total, (acc * correction + weights @ values) / (total or 1.0)
