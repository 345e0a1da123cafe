"""Takes request 0 for nobody.

property: everyone on board gets one token
told: step(occupant=np.array([0])
"""

import numpy as np


def step(occupant, remaining):
    on_board = occupant > 0
    remaining = remaining - on_board
    return np.where(remaining == 0, -1, occupant), remaining, int(on_board.sum())
