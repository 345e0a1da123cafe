"""Leaves those who have boarded on the waitlist.

property: who has boarded no longer waits
told: waitlist=[0]
"""


def refill(occupant, remaining, waitlist, lengths):
    occupant, remaining = occupant.copy(), remaining.copy()
    free = (occupant == -1).nonzero()[0]
    for slot, request in zip(free, waitlist, strict=False):
        occupant[slot], remaining[slot] = request, lengths[request]
    return occupant, remaining, waitlist
