"""Tokens divided by slots, rounded up: as if a request could ride in two slots.

property: the ride lasts at least as long as its longest request
told: drain(lengths=[2], slots=2)
"""


def drain(lengths, slots):
    steps = -(-sum(lengths) // slots)
    return steps, steps if len(lengths) < slots else 0
