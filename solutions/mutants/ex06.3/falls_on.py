"""Goes on with a rate that fell.

property: more riders never give fewer tokens
told: predict(batches=[4, 8, 16, 32]
"""


def predict(batches, rates, batch):
    seconds = [size / rate for size, rate in zip(batches, rates)]
    slope = (seconds[-1] - seconds[-2]) / (batches[-1] - batches[-2])
    slope = max(slope, 0.0)
    return batch / (seconds[-1] + slope * (batch - batches[-1]))
