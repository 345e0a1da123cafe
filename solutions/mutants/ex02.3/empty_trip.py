"""Rides one empty step between batches.

property: the next batch boards as soon as the car is empty
told: was due    (1, 1.0)
"""

import numpy as np


def static_batching(lengths, slots):
    occupant, remaining = np.full(slots, -1), np.zeros(slots, np.int64)
    waitlist = list(range(len(lengths)))
    steps = tokens = 0
    while waitlist or (occupant != -1).any():
        if (occupant == -1).all():
            steps += 1
            occupant, remaining, waitlist = refill(occupant, remaining, waitlist, lengths)  # noqa: F821
        occupant, remaining, given = step(occupant, remaining)  # noqa: F821
        steps += 1
        tokens += given
    return steps, tokens / (slots * steps)
