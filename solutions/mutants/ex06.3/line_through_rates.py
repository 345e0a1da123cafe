"""Draws the line through rates, where the straight lines are in seconds a step.

property: a step that grows evenly goes on growing evenly
told: predict(batches=
"""


def predict(batches, rates, batch):
    slope = (rates[-1] - rates[-2]) / (batches[-1] - batches[-2])
    return min(max(rates[-1] + slope * (batch - batches[-1]), rates[-1]), rates[-1] * batch / batches[-1])
