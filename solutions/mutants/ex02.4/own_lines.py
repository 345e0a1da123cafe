"""Writes the parts out once more inside of the loop.

property: the loop is made of refill and step
told: 0 calls of refill
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
        occupant, remaining = before.copy(), remaining.copy()
        for slot in np.flatnonzero(before == -1)[: len(waitlist)]:
            occupant[slot], *waitlist = waitlist
            remaining[slot] = lengths[occupant[slot]]
        boarded = occupant[occupant != before]
        occupant, remaining, _ = step(occupant, remaining)  # noqa: F821
        clock += 1
        first_token[boarded] = clock
    return first_token - arrivals
