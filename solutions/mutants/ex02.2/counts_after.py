"""Counts the riders when the last have left.

property: the tokens given are those who rode
told: step(occupant=np.array([0]), remaining=np.array([1]))
"""

import numpy as np


def step(occupant, remaining):
    remaining = remaining - (occupant != -1)
    occupant = np.where(remaining == 0, -1, occupant)
    return occupant, remaining, int((occupant != -1).sum())
