"""Takes the length at the slot's place, not at the request's.

property: a new request has its whole length to go
told: refill(occupant=
"""


def refill(occupant, remaining, waitlist, lengths):
    occupant, remaining, waitlist = occupant.copy(), remaining.copy(), list(waitlist)
    for slot in range(len(occupant)):
        if occupant[slot] == -1 and waitlist:
            occupant[slot] = waitlist.pop(0)
            remaining[slot] = lengths[slot % len(lengths)]
    return occupant, remaining, waitlist
