"""Rounds to four digits.

property: numbers are neither rounded nor cut
told: 0.3333 is 0.3333333333333333 rounded: leave the number as it is.
"""


def static_utilization(lengths, slots):
    steps = 0
    for first in range(0, len(lengths), slots):
        steps += max(lengths[first : first + slots])
    return round(sum(lengths) / (slots * steps), 4)
