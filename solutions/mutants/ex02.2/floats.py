"""Remaining tokens as floats.

property: the answer has the right form
told: its dtype is float64
"""

import numpy as np


def step(occupant, remaining):
    on_board = occupant != -1
    remaining = remaining - 1.0 * on_board
    return np.where(remaining == 0, -1, occupant), remaining, int(on_board.sum())
