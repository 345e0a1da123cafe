"""Numbers as all tasks on a tile see them: the state of a row, how arrays are read and compared."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

import numpy as np

from lessonlib.checks.spec import WrongForm, kind

ROUNDING = {"rtol": 1e-6, "atol": 1e-9}


class State(NamedTuple):
    """Of one row: the largest score, the sum of weights, the weighted sum of values."""

    best: float
    total: float
    acc: np.ndarray


def agree(left: Any, right: Any) -> bool:
    return np.allclose(left, right, **ROUNDING, equal_nan=True)


def all_finite(*values: Any) -> bool:
    return all(np.isfinite(value).all() for value in values)


def read_array(value: Any, what: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in an array or in lists, of this shape; nan and inf too."""
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise WrongForm(f"{what} should be an array of numbers; what came back is {kind(value)}.") from None
    if array.ndim != len(shape):
        raise WrongForm(f"{what} should have {len(shape)} dimension(s); its shape is {array.shape}.")
    if array.shape != shape:
        raise WrongForm(f"{what} should have the shape {shape}; its shape is {array.shape}.")
    return array


def draw_numbers(rng: Random, *shape: int) -> np.ndarray:
    """Short numbers, so that a failing call can be read."""
    return np.array([rng.randint(-20, 20) / 4 for _ in range(int(np.prod(shape)))]).reshape(shape)


def state_of(scores: np.ndarray, values: np.ndarray) -> State:
    """The state after these tokens, all at once."""
    best = max(scores.tolist(), default=-np.inf)
    if best == -np.inf:
        return State(best, 0.0, np.zeros(values.shape[1]))
    weights = np.exp(scores - best)
    return State(best, float(weights.sum()), (weights[:, None] * values).sum(0))
