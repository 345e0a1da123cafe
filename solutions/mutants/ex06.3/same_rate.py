"""Expects that the machine is full.

property: while a step costs the same, the rate grows with the batch
told: predict(batches=
"""


def predict(batches, rates, batch):
    return rates[-1]
