"""Takes the last who came.

property: first come, first served
told: waitlist=[0, 1]
"""


def refill(occupant, remaining, waitlist, lengths):
    occupant, remaining, waitlist = occupant.copy(), remaining.copy(), list(waitlist)
    for slot in range(len(occupant)):
        if occupant[slot] == -1 and waitlist:
            occupant[slot] = waitlist.pop(-1)
            remaining[slot] = lengths[occupant[slot]]
    return occupant, remaining, waitlist
