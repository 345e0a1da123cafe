"""Prints the answer and returns nothing.

property: the answer has the right form
told: It printed something and returned nothing.
"""


def static_utilization(lengths, slots):
    steps = sum(max(lengths[first : first + slots]) for first in range(0, len(lengths), slots))
    print(sum(lengths) / (slots * steps))
