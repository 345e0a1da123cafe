"""Averages the batches' own ratios, as if each took as long as the others.

property: the next batch boards when the last of this one has left
told: static_utilization(lengths=
"""


def static_utilization(lengths, slots):
    ratios = []
    for first in range(0, len(lengths), slots):
        batch = lengths[first : first + slots]
        ratios.append(sum(batch) / (slots * max(batch)))
    return sum(ratios) / len(ratios)
