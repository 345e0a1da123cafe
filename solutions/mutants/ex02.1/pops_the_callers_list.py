"""Takes requests off the caller's own waitlist.

property: the inputs are left as they were
told: It changed its input waitlist from [0] to [].
"""


def refill(occupant, remaining, waitlist, lengths):
    occupant, remaining = occupant.copy(), remaining.copy()
    for slot in range(len(occupant)):
        if occupant[slot] == -1 and waitlist:
            occupant[slot] = waitlist.pop(0)
            remaining[slot] = lengths[occupant[slot]]
    return occupant, remaining, waitlist
