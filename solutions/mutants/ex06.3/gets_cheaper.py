"""Lets a step get cheaper by company.

property: more riders never give more than their share
told: predict(batches=
"""


def predict(batches, rates, batch):
    seconds = [size / rate for size, rate in zip(batches, rates)]
    slope = (seconds[-1] - seconds[-2]) / (batches[-1] - batches[-2])
    slope = min(slope, seconds[-1] / batches[-1])
    return batch / (seconds[-1] + slope * (batch - batches[-1]))
