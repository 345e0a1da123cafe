"""Counts idle slot-steps, not steps.

property: the drain is every step that has an empty slot
told: came back  (1, 2)
"""


def drain(lengths, slots):
    free_at = [0] * slots
    for length in lengths:
        free_at[free_at.index(min(free_at))] += length
    return max(free_at), slots * max(free_at) - sum(lengths)
