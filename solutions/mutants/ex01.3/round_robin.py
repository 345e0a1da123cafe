"""Deals the requests out like cards, each slot to the next.

property: a freed slot is refilled for the next step
told: drain(lengths=
"""


def drain(lengths, slots):
    free_at = [sum(lengths[slot::slots]) for slot in range(slots)]
    return max(free_at), max(free_at) - min(free_at)
