"""One line from the smallest size to the largest.

property: beyond a bend, the latest slope counts
told: predict(batches=
"""


def predict(batches, rates, batch):
    seconds = [size / rate for size, rate in zip(batches, rates)]
    slope = (seconds[-1] - seconds[0]) / (batches[-1] - batches[0])
    slope = min(max(slope, 0.0), seconds[-1] / batches[-1])
    return batch / (seconds[-1] + slope * (batch - batches[-1]))
