"""Expects that company takes something away.

property: more riders never give fewer tokens
told: predict(batches=
"""


def predict(batches, rates, batch):
    return rates[-1] * batches[-1] / batch
