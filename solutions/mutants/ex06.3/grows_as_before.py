"""Grows by the same factor again, whatever the sizes are.

property: more riders never give more than their share
told: predict(batches=
"""


def predict(batches, rates, batch):
    return rates[-1] * max(rates[-1] / rates[-2], 1.0) * (batch / batches[-1])
