"""Makes the car one slot larger than it is.

property: no more ride at once than there are slots
told: slots=1)
"""

import numpy as np


def continuous_batching(lengths, arrivals, slots):
    occupant, remaining = np.full(slots + 1, -1), np.zeros(slots + 1, np.int64)
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
        clock += 1
        first_token[boarded] = clock
    return first_token - arrivals
