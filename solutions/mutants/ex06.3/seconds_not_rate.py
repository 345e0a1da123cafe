"""Gives minus the seconds of the step, by a slip of sign.

property: a batch gives tokens
told: predict(batches=
"""


def predict(batches, rates, batch):
    seconds = [size / rate for size, rate in zip(batches, rates)]
    slope = (seconds[-1] - seconds[-2]) / (batches[-1] - batches[-2])
    return slope * (batches[-1] - batch) - seconds[-1]
