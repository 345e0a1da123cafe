"""The next batch boards when the last of this one has left.

property: a freed slot is refilled for the next step
told: drain(lengths=
"""


def drain(lengths, slots):
    steps = sum(max(lengths[first : first + slots]) for first in range(0, len(lengths), slots))
    last = lengths[(len(lengths) - 1) // slots * slots :]
    return steps, max(last) - (min(last) if len(last) == slots else 0)
