"""ex04.4: two partial states of a row made one answer."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np

from lessonlib.checks.ex04.rows import agree, all_finite, draw_numbers, read_array, state_of
from lessonlib.checks.spec import Given, Task, promise


def _splits(rng: Random) -> Iterator[Given]:
    """Pieces of equal and of unequal maximum, an empty one, maxima far apart; then rows cut anywhere."""
    for left, right in (
        ([1.0], [1.0]), ([0.0, 2.0], [2.0]), ([1.0], []), ([], [1.0]), ([0.0], [1.0]), ([3.0, 1.0], [2.0]),
        ([0.0], [1000.0]), ([1000.0], [0.0]), ([-1000.0], [-1001.0]), ([], [-1000.0]),
        ([1000.3], [1000.1]),  # their difference has five digits in float32
    ):  # fmt: skip
        yield _split(rng, left, right, dim=2)
    for _ in range(30):
        wide, many = rng.choice((1, 5, 200)), rng.randint(1, 12)
        row = [rng.uniform(-wide, wide) for _ in range(many)]
        cut = rng.randint(0, many)
        yield _split(rng, row[:cut], row[cut:], dim=rng.randint(1, 4))


def _split(rng: Random, left: list[float], right: list[float], dim: int) -> Given:
    pieces = (
        tuple(state_of(np.array(scores), draw_numbers(rng, len(scores), dim))) for scores in (left, right)
    )
    return dict(zip(("left", "right"), pieces, strict=True))


def _smaller_splits(given: Given) -> Iterator[Given]:
    if len(given["left"][2]) > 1:
        yield {side: (*piece[:2], piece[2][:1]) for side, piece in given.items()}


def _expected_combine(left: Any, right: Any) -> np.ndarray:
    """A mean of the pieces' own means, each with its share of all weights."""
    if not left[1] or not right[1]:
        return right[2] / right[1] if right[1] else left[2] / left[1]
    log_left, log_right = left[0] + np.log(left[1]), right[0] + np.log(right[1])
    share = np.exp(log_left - np.logaddexp(log_left, log_right))
    return share * left[2] / left[1] + (1 - share) * right[2] / right[1]


def _read_combine(answer: Any, given: Given) -> np.ndarray:
    return read_array(answer, "The answer", given["left"][2].shape)


@promise("nothing overflows and nothing becomes NaN")
def _combined_is_finite(given: Given, answer: np.ndarray, expected: np.ndarray) -> bool:
    return all_finite(answer)


@promise("an empty piece changes nothing")
def _empty_changes_nothing(given: Given, answer: np.ndarray, expected: np.ndarray) -> bool:
    return bool(given["left"][1] and given["right"][1]) or agree(answer, expected)


@promise("pieces with the same best add up")
def _equal_bests_add_up(given: Given, answer: np.ndarray, expected: np.ndarray) -> bool:
    return given["left"][0] != given["right"][0] or agree(answer, expected)


@promise("each piece counts in units of the larger best")
def _larger_best_decides(given: Given, answer: np.ndarray, expected: np.ndarray) -> bool:
    return agree(answer, expected)


COMBINE = Task(
    id="ex04.4",
    title="the combine of two splits",
    function="combine",
    cases=_splits,
    smaller=_smaller_splits,
    expected=_expected_combine,
    read=_read_combine,
    properties=(
        _combined_is_finite,
        _empty_changes_nothing,
        _equal_bests_add_up,
        _larger_best_decides,
    ),
    hints=(
        "Two totals in different units cannot be added. Bring both to the larger best first.",
        "Each piece counts exp(its best - the larger best) times. For an empty piece that is exp(-inf), which is 0.",
        "Add up total * correction and acc * correction of both pieces; the answer is the second sum divided by "
        "the first.",
    ),
)
