"""A formula, and one call of each part whose answer is not looked at.

property: the ride is made of refill and step
told: at least
"""

import numpy as np


def static_batching(lengths, slots):
    state = np.full(slots, -1), np.zeros(slots, np.int64)
    refill(*state, list(range(len(lengths))), lengths)  # noqa: F821
    step(*state)  # noqa: F821
    steps = sum(int(max(lengths[first : first + slots])) for first in range(0, len(lengths), slots))
    return steps, int(np.sum(lengths)) / (slots * steps)
