"""The batch lasts as long as its average request.

property: a batch lasts as long as its longest request
told: static_utilization(lengths=[1, 2], slots=2)
"""


def static_utilization(lengths, slots):
    steps = 0
    for first in range(0, len(lengths), slots):
        batch = lengths[first : first + slots]
        steps += sum(batch) / len(batch) if len(batch) == slots else max(batch)
    return sum(lengths) / (slots * steps)
