"""Leaves out the longest length, as `range` does.

property: no call raises an error
told: ZeroDivisionError
"""


def expected_static_utilization(low, high, slots):
    choices = high - low
    longest = low + sum(1 - ((k - low + 1) / choices) ** slots for k in range(low, high - 1))
    return (low + high - 1) / 2 / longest if choices else 1 / choices
