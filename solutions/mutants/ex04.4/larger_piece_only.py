"""Takes the piece with the larger best and drops the other.

property: pieces with the same best add up
told: came back
"""


def combine(left, right):
    best, total, acc = left if left[0] >= right[0] else right
    return acc / total
