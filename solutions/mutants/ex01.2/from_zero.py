"""The rule for lengths from 0, used for any range.

property: lengths that cannot vary waste nothing
told: was due    1.0: mean length 1 ÷ expected longest 1
"""


def expected_static_utilization(low, high, slots):
    return (slots + 1) / (2 * slots)
