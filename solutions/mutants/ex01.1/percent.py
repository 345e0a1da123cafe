"""In percent.

property: utilization is never above one
told: came back  100.0
"""


def static_utilization(lengths, slots):
    steps = sum(max(lengths[first : first + slots]) for first in range(0, len(lengths), slots))
    return 100 * sum(lengths) / (slots * steps)
