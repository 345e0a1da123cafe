"""Halfway between the two limits, whichever it is at.

property: while a step costs the same, the rate grows with the batch
told: predict(batches=
"""


def predict(batches, rates, batch):
    return rates[-1] * (1 + batch / batches[-1]) / 2
