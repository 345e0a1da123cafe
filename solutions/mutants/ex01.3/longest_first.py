"""Boards the longest first, which is shorter and not what was asked.

property: requests board whole, in the order in which they wait
told: drain(lengths=[1, 1, 2], slots=2)
"""


def drain(lengths, slots):
    free_at = [0] * slots
    for length in sorted(lengths, reverse=True):
        free_at[free_at.index(min(free_at))] += length
    return (
        (max(free_at), max(free_at) - min(free_at))
        if len(lengths) > slots
        else (max(lengths), _left(lengths, slots))
    )


def _left(lengths, slots):
    return max(lengths) - (min(lengths) if len(lengths) == slots else 0)
