"""Takes the mean of what was measured.

property: more riders never give fewer tokens
told: predict(batches=
"""


def predict(batches, rates, batch):
    return sum(rates) / len(rates)
