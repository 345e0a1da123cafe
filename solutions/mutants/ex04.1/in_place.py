"""Works on the acc of the caller.

property: the inputs are left as they were
told: It changed its input acc
"""

import numpy as np


def fold_tile(best, total, acc, scores, values):
    new_best = max(best, float(scores.max()))
    anchor = 0.0 if new_best == -np.inf else new_best
    weights, correction = np.exp(scores - anchor), np.exp(best - anchor)
    acc *= correction
    acc += weights @ values
    return new_best, float(total * correction + weights.sum()), acc
