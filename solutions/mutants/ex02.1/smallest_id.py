"""Takes the smallest id in place of the first in the list.

property: first come, first served
told: refill(occupant=
"""


def refill(occupant, remaining, waitlist, lengths):
    occupant, remaining, waitlist = occupant.copy(), remaining.copy(), list(waitlist)
    for slot in range(len(occupant)):
        if occupant[slot] == -1 and waitlist:
            occupant[slot] = waitlist.pop(waitlist.index(min(waitlist)))
            remaining[slot] = lengths[occupant[slot]]
    return occupant, remaining, waitlist
