"""Fills from the highest slot down.

property: the lowest free slot is filled first
told: occupant=np.array([-1, -1])
"""


def refill(occupant, remaining, waitlist, lengths):
    occupant, remaining, waitlist = occupant.copy(), remaining.copy(), list(waitlist)
    for slot in reversed(range(len(occupant))):
        if occupant[slot] == -1 and waitlist:
            occupant[slot] = waitlist.pop(0)
            remaining[slot] = lengths[occupant[slot]]
    return occupant, remaining, waitlist
