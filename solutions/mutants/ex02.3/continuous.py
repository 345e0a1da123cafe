"""Refills at every step: that is continuous batching.

property: nobody boards until the car is empty
told: static_batching(lengths=np.array(
"""

import numpy as np


def static_batching(lengths, slots):
    occupant, remaining = np.full(slots, -1), np.zeros(slots, np.int64)
    waitlist = list(range(len(lengths)))
    steps = tokens = 0
    while waitlist or (occupant != -1).any():
        occupant, remaining, waitlist = refill(occupant, remaining, waitlist, lengths)  # noqa: F821
        occupant, remaining, given = step(occupant, remaining)  # noqa: F821
        steps += 1
        tokens += given
    return steps, tokens / (slots * steps)
