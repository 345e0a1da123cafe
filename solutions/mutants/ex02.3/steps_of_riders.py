"""Divides by the rider-steps, so that nothing is ever wasted.

property: utilization is tokens given over slots times steps
told: came back  (1, 1.0)
"""

import numpy as np


def static_batching(lengths, slots):
    occupant, remaining = np.full(slots, -1), np.zeros(slots, np.int64)
    waitlist = list(range(len(lengths)))
    steps = tokens = 0
    while waitlist or (occupant != -1).any():
        if (occupant == -1).all():
            occupant, remaining, waitlist = refill(occupant, remaining, waitlist, lengths)  # noqa: F821
        occupant, remaining, given = step(occupant, remaining)  # noqa: F821
        steps += 1
        tokens += given
    return steps, tokens / tokens
