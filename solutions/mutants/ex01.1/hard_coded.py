"""The figure from the notebook, whatever the input.

property: a slot that nobody boarded is paid for as well
told: came back  0.593
"""


def static_utilization(lengths, slots):
    return 0.593 if slots > 1 else 1.0
