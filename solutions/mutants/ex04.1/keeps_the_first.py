"""Keeps the maximum of the first tile.

property: best is the largest score so far
told: best=0.0
"""

import numpy as np


def fold_tile(best, total, acc, scores, values):
    new_best = float(scores.max()) if best == -np.inf else best
    anchor = max(0.0 if best == -np.inf else best, float(scores.max()))
    weights = np.exp(scores - anchor)
    return new_best, float(total + weights.sum()), acc + weights @ values
