"""Puts the next request into every slot, free or not.

property: whoever is on board keeps their slot
told: refill(occupant=
"""


def refill(occupant, remaining, waitlist, lengths):
    occupant, remaining, waitlist = occupant.copy(), remaining.copy(), list(waitlist)
    for slot in range(len(occupant)):
        if waitlist:
            occupant[slot] = waitlist.pop(0)
            remaining[slot] = lengths[occupant[slot]]
    return occupant, remaining, waitlist
