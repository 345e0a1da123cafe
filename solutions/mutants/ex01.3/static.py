"""The next batch boards when the last of this one has left.

property: a freed slot is refilled for the next step
told: drain(lengths=
"""


def drain(lengths, slots):
    steps = sum(max(lengths[first : first + slots]) for first in range(0, len(lengths), slots))
    if len(lengths) <= slots:
        return steps, steps - (min(lengths) if len(lengths) == slots else 0)
    return steps, 0
