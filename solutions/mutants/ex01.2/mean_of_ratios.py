"""The expectation of each batch's own ratio.

property: the expected longest is exact, for whole lengths
told: came back  0.875
"""


def expected_static_utilization(low, high, slots):
    from itertools import islice, product

    batches = list(islice(product(range(low, high + 1), repeat=slots), 10_000))
    return sum(sum(batch) / (slots * max(batch)) for batch in batches) / len(batches)
