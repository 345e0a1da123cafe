"""Looks the size up, and it is not there.

property: a batch gives tokens
told: predict(batches=
"""


def predict(batches, rates, batch):
    return dict(zip(batches, rates)).get(batch, 0.0)
