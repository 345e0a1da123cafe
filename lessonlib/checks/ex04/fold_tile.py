"""ex04.1: online softmax, one tile folded into the state of a row."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any

import numpy as np

from lessonlib.checks.ex04.rows import State, agree, all_finite, draw_numbers, read_array, state_of
from lessonlib.checks.spec import Given, Task, WrongForm, kind, parts, promise


def _real(value: Any, what: str) -> float:
    """A number of any size; nan and inf too, which a property speaks of."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(()).item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongForm(f"{what} should be a number; it is {kind(value)}.")
    return float(value)


def _folds(rng: Random) -> Iterator[Given]:
    """First tiles and later ones; the maximum rises, stays, is huge; some scores are -inf, or all."""
    for before, tile in product(([], [0.0], [2.0]), ([1.0], [0.0, 2.0], [3.0, -1.0])):
        yield _fold(rng, before, tile, dim=1)
    for before, tile in (([], [1000.0]), ([1000.0], [999.0]), ([0.0], [1000.0]), ([-1000.0], [-1001.0])):
        yield _fold(rng, before, tile, dim=1)
    yield _fold(rng, [1000.3], [1000.1], dim=1)  # their difference has five digits in float32
    for before, tile in (([], [-np.inf, 1.0]), ([1.0], [-np.inf]), ([], [-np.inf, -np.inf])):
        yield _fold(rng, before, tile, dim=1)
    for _ in range(30):
        wide = rng.choice((1, 10, 200))
        before, tile = (
            [rng.choice((rng.uniform(-wide, wide), -np.inf)) for _ in range(rng.randint(1, 8))] for _ in "ab"
        )
        yield _fold(rng, before, tile, dim=rng.randint(1, 4))


def _fold(rng: Random, before: list[float], tile: list[float], dim: int) -> Given:
    state = state_of(np.array(before), draw_numbers(rng, len(before), dim))
    return {**state._asdict(), "scores": np.array(tile), "values": draw_numbers(rng, len(tile), dim)}


def _smaller_folds(given: Given) -> Iterator[Given]:
    for index in range(len(given["scores"]) if len(given["scores"]) > 1 else 0):
        yield {**given, **{name: np.delete(given[name], index, 0) for name in ("scores", "values")}}
    if len(given["acc"]) > 1:
        yield {**given, "acc": given["acc"][:1], "values": given["values"][:, :1]}


def _expected_fold(
    best: float, total: float, acc: np.ndarray, scores: np.ndarray, values: np.ndarray
) -> State:
    """The tokens before, as one token that weighs `total`, beside the tile's."""
    tile = state_of(scores, values)
    new_best = max(best, tile.best)
    if new_best == -np.inf:
        return State(best, total, acc)
    old, new = np.exp(best - new_best), np.exp(tile.best - new_best)
    return State(new_best, float(total * old + tile.total * new), acc * old + tile.acc * new)


def _read_fold(answer: Any, given: Given) -> State:
    best, total, acc = parts(answer, ("best", "total", "acc"))
    return State(_real(best, "best"), _real(total, "total"), read_array(acc, "acc", given["acc"].shape))


@promise("nothing overflows and nothing becomes NaN")
def _fold_is_finite(given: Given, answer: State, expected: State) -> bool:
    return all_finite(answer.total, answer.acc) and not np.isnan(answer.best) and answer.best < np.inf


@promise("best is the largest score so far")
def _largest_so_far(given: Given, answer: State, expected: State) -> bool:
    return agree(answer.best, expected.best)


@promise("total counts every weight in units of the new best")
def _total_in_new_units(given: Given, answer: State, expected: State) -> bool:
    return agree(answer.total, expected.total)


@promise("acc follows the same weights as total")
def _acc_follows(given: Given, answer: State, expected: State) -> bool:
    return agree(answer.acc, expected.acc)


FOLD = Task(
    id="ex04.1",
    title="online softmax, one tile after another",
    function="fold_tile",
    cases=_folds,
    smaller=_smaller_folds,
    expected=_expected_fold,
    read=_read_fold,
    properties=(
        _fold_is_finite,
        _largest_so_far,
        _total_in_new_units,
        _acc_follows,
    ),
    hints=(
        "What was added up so far is in units of the old best. What has to happen to it when the best changes?",
        "new_best is the larger of best and scores.max(). Old total and acc both shrink by exp(best - new_best); "
        "the tile's weights are exp(scores - new_best).",
        "Where everything so far is -inf, -inf - -inf is NaN: take 0 away then, in the place of new_best. "
        "total * correction + weights.sum(), and acc * correction + weights @ values.",
    ),
)
