"""Leaves with one token still to come.

property: whoever still wants tokens stays
told: remaining=np.array([2])
"""

import numpy as np


def step(occupant, remaining):
    on_board = occupant != -1
    remaining = remaining - on_board
    return np.where(remaining <= 1, -1, occupant), remaining, int(on_board.sum())
