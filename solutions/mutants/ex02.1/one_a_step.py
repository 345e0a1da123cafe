"""Boards one request and is done.

property: a freed slot is refilled for the next step
told: occupant=np.array([-1, -1])
"""


def refill(occupant, remaining, waitlist, lengths):
    occupant, remaining, waitlist = occupant.copy(), remaining.copy(), list(waitlist)
    for slot in range(len(occupant)):
        if occupant[slot] == -1 and waitlist:
            occupant[slot] = waitlist.pop(0)
            remaining[slot] = lengths[occupant[slot]]
            break
    return occupant, remaining, waitlist
