"""Counts down in the caller's own array.

property: the inputs are left as they were
told: It changed its input remaining from np.array([1]) to np.array([0]).
"""

import numpy as np


def step(occupant, remaining):
    on_board = occupant != -1
    remaining[on_board] -= 1
    return np.where(remaining == 0, -1, occupant), remaining, int(on_board.sum())
