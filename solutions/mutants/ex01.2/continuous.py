"""The expected maximum of real numbers, not of whole ones.

property: the expected longest is exact, for whole lengths
told: expected_static_utilization(low=1, high=2, slots=2)
"""


def expected_static_utilization(low, high, slots):
    return (low + high) / 2 / (low + (high - low) * slots / (slots + 1))
