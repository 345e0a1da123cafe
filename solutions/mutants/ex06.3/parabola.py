"""A parabola through the last three: exact on straight lines, wild where they wobble.

property: a measured sweep is foreseen, and its wobble not blown up
told: predict(batches=
"""


def predict(batches, rates, batch):
    (a, b, c), steps = batches[-3:], [size / rate for size, rate in zip(batches, rates)][-3:]
    step = (
        steps[0] * (batch - b) * (batch - c) / ((a - b) * (a - c))
        + steps[1] * (batch - a) * (batch - c) / ((b - a) * (b - c))
        + steps[2] * (batch - a) * (batch - b) / ((c - a) * (c - b))
    )
    step = min(max(step, steps[-1]), steps[-1] * batch / c)
    return batch / step
