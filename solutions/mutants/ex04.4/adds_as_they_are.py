"""Adds the pieces as if they had the same best.

property: each piece counts in units of the larger best
told: came back
"""


def combine(left, right):
    return (left[2] + right[2]) / (left[1] + right[1])
