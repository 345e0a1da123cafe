"""Gives everyone all that they want.

property: everyone on board gets one token
told: remaining=np.array([2])
"""

import numpy as np


def step(occupant, remaining):
    return np.full_like(occupant, -1), np.zeros_like(remaining), int((occupant != -1).sum())
