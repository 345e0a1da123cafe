"""Forgets to board anyone.

property: every call comes back
told: No answer within
"""

import numpy as np


def static_batching(lengths, slots):
    occupant, remaining = np.full(slots, -1), np.zeros(slots, np.int64)
    waitlist = list(range(len(lengths)))
    steps = tokens = 0
    while waitlist or (occupant != -1).any():
        # the car leaves empty
        occupant, remaining, given = step(occupant, remaining)  # noqa: F821
        steps += 1
        tokens += given
    return steps, tokens / (slots * steps)
