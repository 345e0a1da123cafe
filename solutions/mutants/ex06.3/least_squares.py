"""One line through all sizes: the bend is averaged away.

property: beyond a bend, the latest slope counts
told: predict(batches=
"""


def predict(batches, rates, batch):
    seconds = [size / rate for size, rate in zip(batches, rates)]
    middle, level = sum(batches) / len(batches), sum(seconds) / len(seconds)
    spread = sum((size - middle) ** 2 for size in batches)
    slope = sum((size - middle) * (step - level) for size, step in zip(batches, seconds)) / spread
    rate = batch / (level + slope * (batch - middle))
    return min(max(rate, rates[-1]), rates[-1] * batch / batches[-1])
