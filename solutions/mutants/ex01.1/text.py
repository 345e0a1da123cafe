"""A formatted text in place of the number.

property: the answer has the right form
told: is a string
"""


def static_utilization(lengths, slots):
    steps = sum(max(lengths[first : first + slots]) for first in range(0, len(lengths), slots))
    return f"{sum(lengths) / (slots * steps):.1%}"
