"""Never takes a batch off the list.

property: every call comes back
told: No answer within
"""


def static_utilization(lengths, slots):
    steps = 0
    while lengths:
        steps += max(lengths[:slots])
    return steps
