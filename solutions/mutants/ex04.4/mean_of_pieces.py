"""Takes the mean of the two answers, an empty one too.

property: an empty piece changes nothing
told: -np.inf
"""


def combine(left, right):
    answers = [piece[2] / max(piece[1], 1e-30) for piece in (left, right)]
    same = left[0] == right[0]
    return (left[2] + right[2]) / (left[1] + right[1]) if same else (answers[0] + answers[1]) / 2
