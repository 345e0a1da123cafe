"""Divides whole numbers by whole numbers.

property: numbers are neither rounded nor cut
told: is there a `//` where a `/` should be?
"""


def static_utilization(lengths, slots):
    steps = 0
    for first in range(0, len(lengths), slots):
        steps += max(lengths[first : first + slots])
    return sum(lengths) // (slots * steps)
