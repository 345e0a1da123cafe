"""Looks at the largest score of this tile only.

property: best is the largest score so far
told: best=2.0
"""

import numpy as np


def fold_tile(best, total, acc, scores, values):
    new_best = float(scores.max())
    anchor = 0.0 if new_best == -np.inf else new_best
    weights, correction = np.exp(scores - anchor), np.exp(min(best - anchor, 0))
    return new_best, float(total * correction + weights.sum()), acc * correction + weights @ values
