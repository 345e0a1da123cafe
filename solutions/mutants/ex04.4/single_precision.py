"""Computes in float32, as a kernel would.

property: numbers are neither rounded nor cut
told: the numbers here are float64
"""


def combine(left, right):
    best = np.float32(max(left[0], right[0]))  # noqa: F821
    total, acc = np.float32(0.0), np.zeros_like(left[2], np.float32)  # noqa: F821
    for piece_best, piece_total, piece_acc in (left, right):
        correction = np.exp(np.float32(piece_best) - best)  # noqa: F821
        total += np.float32(piece_total) * correction  # noqa: F821
        acc = acc + piece_acc.astype(np.float32) * correction  # noqa: F821
    return acc / total
