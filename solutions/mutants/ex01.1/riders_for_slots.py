"""Divides by the requests on board, so that empty slots are free of charge.

property: a slot that nobody boarded is paid for as well
told: was due    0.5: 1 token ÷ (2 slots × 1 step)
"""


def static_utilization(lengths, slots):
    paid = 0
    for first in range(0, len(lengths), slots):
        batch = lengths[first : first + slots]
        paid += len(batch) * max(batch)
    return sum(lengths) / paid
