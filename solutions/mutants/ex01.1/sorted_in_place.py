"""Boards the longest first, and sorts the caller's own list for it.

property: the inputs are left as they were
told: It changed its input lengths from [1, 2] to [2, 1].
"""


def static_utilization(lengths, slots):
    lengths.sort(reverse=True)
    steps = sum(max(lengths[first : first + slots]) for first in range(0, len(lengths), slots))
    return sum(lengths) / (slots * steps)
