"""Steps as a fraction.

property: the answer has the right form
told: Steps should be a whole number
"""


def drain(lengths, slots):
    return sum(lengths) / slots, 0
