"""The larger of the two lower bounds, as if requests could be cut to fit.

property: requests board whole, in the order in which they wait
told: slots=2
"""


def drain(lengths, slots):
    steps = max(-(-sum(lengths) // slots), max(lengths))
    return steps, (slots * steps - sum(lengths) > 0) * steps if len(lengths) < slots else _drain(
        lengths, slots
    )


def _drain(lengths, slots):
    free_at = [0] * slots
    for length in lengths:
        free_at[free_at.index(min(free_at))] += length
    return max(free_at) - min(free_at)
