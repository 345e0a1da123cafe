"""Each gives what one alone gave.

property: more riders never give more than their share
told: predict(batches=
"""


def predict(batches, rates, batch):
    return rates[0] / batches[0] * batch
