"""Computes in float32, as a kernel would.

property: numbers are neither rounded nor cut
told: the numbers here are float64
"""


def fold_tile(best, total, acc, scores, values):
    scores, values, acc = (each.astype(np.float32) for each in (scores, values, acc))  # noqa: F821
    new_best = max(np.float32(best), scores.max())  # noqa: F821
    anchor = np.float32(0.0) if new_best == -np.inf else new_best  # noqa: F821
    weights = np.exp(scores - anchor)  # noqa: F821
    correction = np.exp(np.float32(best) - anchor)  # noqa: F821
    return float(new_best), float(np.float32(total) * correction + weights.sum()), acc * correction + weights @ values  # noqa: F821
