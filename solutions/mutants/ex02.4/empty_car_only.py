"""Boards only into an empty car: that is static batching.

property: a free slot is taken for the next step while anybody waits
told: slots=2)
"""

import numpy as np


def continuous_batching(lengths, arrivals, slots):
    occupant, remaining = np.full(slots, -1), np.zeros(slots, np.int64)
    waitlist, first_token = [], np.zeros(len(lengths), np.int64)
    clock = arrived = 0
    while arrived < len(lengths) or waitlist:
        while arrived < len(lengths) and arrivals[arrived] <= clock:
            waitlist = [*waitlist, arrived]
            arrived += 1
        before = occupant
        if (occupant == -1).all():
            occupant, remaining, waitlist = refill(occupant, remaining, waitlist, lengths)  # noqa: F821
        boarded = occupant[occupant != before]
        occupant, remaining, _ = step(occupant, remaining)  # noqa: F821
        clock += 1
        first_token[boarded] = clock
    return first_token - arrivals
