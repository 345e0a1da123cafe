"""Takes the longest possible length for the expected longest.

property: one slot never waits
told: slots=1
"""


def expected_static_utilization(low, high, slots):
    return (low + high) / 2 / high
