"""Expects that company is free for ever.

property: while each rider costs the same, the rate stays
told: predict(batches=
"""


def predict(batches, rates, batch):
    return rates[-1] * batch / batches[-1]
