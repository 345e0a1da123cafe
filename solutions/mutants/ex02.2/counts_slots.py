"""Counts slots in place of riders.

property: the tokens given are those who rode
told: step(occupant=np.array([-1])
"""

import numpy as np


def step(occupant, remaining):
    remaining = remaining - (occupant != -1)
    return np.where(remaining == 0, -1, occupant), remaining, len(occupant)
