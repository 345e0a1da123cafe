"""Whoever is done keeps the slot.

property: whoever has their last token leaves the slot free
told: step(occupant=np.array([0]), remaining=np.array([1]))
"""


def step(occupant, remaining):
    on_board = occupant != -1
    return occupant, remaining - on_board, int(on_board.sum())
