"""Boards the longest first.

property: the next batch boards when the last of this one has left
told: slots=2
"""


def static_utilization(lengths, slots):
    lengths = sorted(lengths, reverse=True)
    steps = sum(max(lengths[first : first + slots]) for first in range(0, len(lengths), slots))
    return sum(lengths) / (slots * steps)
