"""A Monte Carlo estimate.

property: the expected longest is exact, for whole lengths
told: was due
"""


def expected_static_utilization(low, high, slots):
    import random

    rng = random.Random(0)
    draws = [[rng.randint(low, high) for _ in range(slots)] for _ in range(200)]
    if low == high or slots == 1:
        return 1.0
    return min(1.0, (low + high) / 2 / (sum(map(max, draws)) / len(draws)))
