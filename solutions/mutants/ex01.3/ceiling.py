"""Tokens divided by slots, rounded up: as if a request could ride in two slots.

property: the ride lasts at least as long as its longest request
told: drain(lengths=[2], slots=2)
"""


def drain(lengths, slots):
    return -(-sum(lengths) // slots), 0
