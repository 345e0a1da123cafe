"""The expected longest over the mean.

property: utilization is never above one
told: expected_static_utilization(low=1, high=2, slots=2)
"""


def expected_static_utilization(low, high, slots):
    choices = high - low + 1
    longest = low + sum(1 - ((k - low + 1) / choices) ** slots for k in range(low, high))
    return longest / ((low + high) / 2)
