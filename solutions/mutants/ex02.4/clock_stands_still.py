"""Looks at the door again and again while the car is empty, and no time passes.

property: every call comes back
told: No answer within
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
        occupant, remaining, waitlist = refill(occupant, remaining, waitlist, lengths)  # noqa: F821
        boarded = occupant[occupant != before]
        occupant, remaining, _ = step(occupant, remaining)  # noqa: F821
        clock += bool(boarded.size or (before != -1).any())
        first_token[boarded] = clock
    return first_token - arrivals
