"""Counts a token as given before the first step.

property: a new request has its whole length to go
told: refill(occupant=np.array([-1])
"""


def refill(occupant, remaining, waitlist, lengths):
    occupant, remaining, waitlist = occupant.copy(), remaining.copy(), list(waitlist)
    for slot in range(len(occupant)):
        if occupant[slot] == -1 and waitlist:
            occupant[slot] = waitlist.pop(0)
            remaining[slot] = lengths[occupant[slot]] - 1
    return occupant, remaining, waitlist
