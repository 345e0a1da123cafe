"""Forgets what came before when a larger score turns up.

property: total counts every weight in units of the new best
told: came back
"""

import numpy as np


def fold_tile(best, total, acc, scores, values):
    new_best = max(best, float(scores.max()))
    anchor = 0.0 if new_best == -np.inf else new_best
    weights, kept = np.exp(scores - anchor), float(new_best == best)
    return new_best, float(total * kept + weights.sum()), acc * kept + weights @ values
