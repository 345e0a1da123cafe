"""ex04.3: the mask of a tile, on scores and on values."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np

from lessonlib.checks.ex04.rows import agree, draw_numbers, read_array
from lessonlib.checks.spec import Given, Task, parts, promise


def _masks(rng: Random) -> Iterator[Given]:
    """A tile of decode, of a prompt's diagonal, and past the end, with NaN or a neighbor's numbers there."""
    for first, length, rows in ((0, 2, 1), (0, 2, 2), (0, 3, 1), (4, 6, 2), (4, 7, 3), (4, 5, 1)):
        for leftover in (np.nan, 7.0):
            yield _tile(rng, first, 3, length, rows, 1, leftover)
    for _ in range(30):
        first, tile = rng.randint(0, 40), rng.randint(1, 8)
        length = first + rng.randint(1, tile + 4)
        rows = rng.randint(1, min(5, length))
        yield _tile(rng, first, tile, length, rows, rng.randint(1, 3), rng.choice((np.nan, 7.0)))


def _tile(rng: Random, first: int, tile: int, length: int, rows: int, dim: int, leftover: float) -> Given:
    """The last `rows` queries of a sequence over one tile of its keys."""
    scores, values = draw_numbers(rng, rows, tile), draw_numbers(rng, tile, dim)
    beyond = first + np.arange(tile) >= length
    scores[:, beyond] = leftover
    values[beyond] = leftover
    return {
        "scores": scores,
        "values": values,
        "first_token": first,
        "last_visible": np.arange(length - rows, length),
        "length": length,
    }


def _smaller_masks(given: Given) -> Iterator[Given]:
    if len(given["scores"]) > 1:
        for row in range(len(given["scores"])):
            fewer = {name: np.delete(given[name], row, 0) for name in ("scores", "last_visible")}
            yield {**given, **fewer}
    if given["scores"].shape[1] > 1:
        yield {**given, "scores": given["scores"][:, :-1], "values": given["values"][:-1]}
    if given["values"].shape[1] > 1:
        yield {**given, "values": given["values"][:, :1]}


def _expected_mask(
    scores: np.ndarray, values: np.ndarray, first_token: int, last_visible: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    scores, values = scores.copy(), values.copy()
    for row, last in enumerate(last_visible.tolist()):
        scores[row, max(0, last + 1 - first_token) :] = -np.inf
    values[max(0, length - first_token) :] = 0.0
    return scores, values


def _read_mask(answer: Any, given: Given) -> tuple[np.ndarray, np.ndarray]:
    scores, values = parts(answer, ("scores", "values"))
    return read_array(scores, "scores", given["scores"].shape), read_array(
        values, "values", given["values"].shape
    )


@promise("a score that may be seen stays as it was")
def _visible_stays(given: Given, answer: Any, expected: Any) -> bool:
    seen = np.isfinite(expected[0])
    return agree(answer[0][seen], expected[0][seen])


@promise("what a row may not see scores -inf")
def _ahead_is_masked(given: Given, answer: Any, expected: Any) -> bool:
    return bool((answer[0][~np.isfinite(expected[0])] == -np.inf).all())


@promise("values beyond the end are zero")
def _beyond_is_zero(given: Given, answer: Any, expected: Any) -> bool:
    own = max(0, given["length"] - given["first_token"])
    return bool((answer[1][own:] == 0).all())


@promise("values within the length stay as they were")
def _own_values_stay(given: Given, answer: Any, expected: Any) -> bool:
    return agree(answer[1], expected[1])


MASK = Task(
    id="ex04.3",
    title="the mask, and why V too",
    function="mask_tile",
    cases=_masks,
    smaller=_smaller_masks,
    expected=_expected_mask,
    read=_read_mask,
    properties=(
        _visible_stays,
        _ahead_is_masked,
        _beyond_is_zero,
        _own_values_stay,
    ),
    hints=(
        "A weight of 0 times NaN is NaN. So which of the two arrays does a score of -inf not protect?",
        "Give each column its position, first_token + np.arange(tile). A row sees positions up to its own "
        "last_visible; values from `length` on are nobody's.",
        "np.where(tokens[None, :] <= last_visible[:, None], scores, -inf) and np.where((tokens < length)[:, None], "
        "values, 0.0). np.where and not a product: NaN * 0 is NaN.",
    ),
)
