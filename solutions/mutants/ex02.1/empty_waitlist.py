"""Takes someone off an empty list.

property: no call raises an error
told: IndexError: pop from empty list
"""


def refill(occupant, remaining, waitlist, lengths):
    occupant, remaining, waitlist = occupant.copy(), remaining.copy(), list(waitlist)
    for slot in range(len(occupant)):
        if occupant[slot] == -1:
            occupant[slot] = waitlist.pop(0)
            remaining[slot] = lengths[occupant[slot]]
    return occupant, remaining, waitlist
