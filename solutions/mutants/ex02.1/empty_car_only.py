"""Waits for an empty car, as static batching does.

property: a freed slot is refilled for the next step
told: refill(occupant=
"""


def refill(occupant, remaining, waitlist, lengths):
    if (occupant != -1).any():
        return occupant, remaining, waitlist
    occupant, remaining, waitlist = occupant.copy(), remaining.copy(), list(waitlist)
    for slot in range(len(occupant)):
        if occupant[slot] == -1 and waitlist:
            occupant[slot] = waitlist.pop(0)
            remaining[slot] = lengths[occupant[slot]]
    return occupant, remaining, waitlist
