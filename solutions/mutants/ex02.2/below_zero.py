"""Takes a token from free slots as well.

property: an empty slot stays empty
told: remaining=np.array([0])
"""

import numpy as np


def step(occupant, remaining):
    remaining = remaining - 1
    return np.where(remaining <= 0, -1, occupant), remaining, int((occupant != -1).sum())
