"""What exercise 04 must do: what a paged-attention kernel does to one tile, in NumPy.

Due answers are sums over whole rows in float64, written another way than the exercise asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any, NamedTuple

import numpy as np

from lessonlib.checks.spec import Exercise, Given, Property, Task, WrongForm, count, kind, parts

ROUNDING = {"rtol": 1e-6, "atol": 1e-9}
NO_BLOCK = 10**6  # a block id that no cache has


class State(NamedTuple):
    """Of one row: the largest score, the sum of weights, the weighted sum of values."""

    best: float
    total: float
    acc: np.ndarray


def _same(left: Any, right: Any) -> bool:
    return np.allclose(left, right, **ROUNDING, equal_nan=True)


def _finite(*values: Any) -> bool:
    return all(np.isfinite(value).all() for value in values)


def _real(value: Any, what: str) -> float:
    """A number of any size; nan and inf too, which a property speaks of."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(()).item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongForm(f"{what} should be a number; it is {kind(value)}.")
    return float(value)


def _array(value: Any, what: str, shape: tuple[int, ...]) -> np.ndarray:
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


def _numbers(rng: Random, *shape: int) -> np.ndarray:
    """Short numbers, so that a failing call can be read."""
    return np.array([rng.randint(-20, 20) / 4 for _ in range(int(np.prod(shape)))]).reshape(shape)


def _row_of(scores: np.ndarray, values: np.ndarray) -> State:
    """The state after these tokens, all at once."""
    best = max(scores.tolist(), default=-np.inf)
    if best == -np.inf:
        return State(best, 0.0, np.zeros(values.shape[1]))
    weights = np.exp(scores - best)
    return State(best, float(weights.sum()), (weights[:, None] * values).sum(0))


def _nothing_to_explain(given: Given, due: Any) -> str:
    return ""


# ----- ex04.1 -----


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
    state = _row_of(np.array(before), _numbers(rng, len(before), dim))
    return {**state._asdict(), "scores": np.array(tile), "values": _numbers(rng, len(tile), dim)}


def _smaller_folds(given: Given) -> Iterator[Given]:
    for place in range(len(given["scores"]) if len(given["scores"]) > 1 else 0):
        yield {**given, **{name: np.delete(given[name], place, 0) for name in ("scores", "values")}}
    if len(given["acc"]) > 1:
        yield {**given, "acc": given["acc"][:1], "values": given["values"][:, :1]}


def _due_fold(best: float, total: float, acc: np.ndarray, scores: np.ndarray, values: np.ndarray) -> State:
    """The tokens before, as one token that weighs `total`, beside the tile's."""
    tile = _row_of(scores, values)
    new_best = max(best, tile.best)
    if new_best == -np.inf:
        return State(best, total, acc)
    old, new = np.exp(best - new_best), np.exp(tile.best - new_best)
    return State(new_best, float(total * old + tile.total * new), acc * old + tile.acc * new)


def _read_fold(answer: Any, given: Given) -> State:
    best, total, acc = parts(answer, ("best", "total", "acc"))
    return State(_real(best, "best"), _real(total, "total"), _array(acc, "acc", given["acc"].shape))


def _fold_is_finite(given: Given, answer: State, due: State) -> bool:
    return _finite(answer.total, answer.acc) and not np.isnan(answer.best) and answer.best < np.inf


def _largest_so_far(given: Given, answer: State, due: State) -> bool:
    return _same(answer.best, due.best)


def _total_in_new_units(given: Given, answer: State, due: State) -> bool:
    return _same(answer.total, due.total)


def _acc_follows(given: Given, answer: State, due: State) -> bool:
    return _same(answer.acc, due.acc)


FOLD = Task(
    id="ex04.1",
    title="online softmax, one tile after another",
    function="fold_tile",
    cases=_folds,
    smaller=_smaller_folds,
    due=_due_fold,
    read=_read_fold,
    properties=(
        Property("nothing overflows and nothing becomes NaN", _fold_is_finite),
        Property("best is the largest score so far", _largest_so_far),
        Property("total counts every weight in units of the new best", _total_in_new_units),
        Property("acc follows the same weights as total", _acc_follows),
    ),
    explain=_nothing_to_explain,
)


# ----- ex04.2 -----


def _gathers(rng: Random) -> Iterator[Given]:
    """Every length of up to three blocks of two; then larger caches. Each row of a cache is another number."""
    for length in (1, 2, 3, 4, 5, 6, 0):
        yield _cache(rng, num_blocks=4, block_size=2, length=length, dim=1, spare=length % 3)
    for _ in range(30):
        block_size, blocks = rng.choice((1, 2, 4, 16)), rng.randint(1, 6)
        length = rng.randint(0, block_size * blocks)
        yield _cache(rng, blocks + 2, block_size, length, rng.randint(1, 3), spare=rng.randint(0, 2))


def _cache(rng: Random, num_blocks: int, block_size: int, length: int, dim: int, spare: int) -> Given:
    """A cache whose rows all differ, and a permuted table with `spare` entries that nobody may follow."""
    rows = np.array(rng.sample(range(10 * num_blocks * block_size), num_blocks * block_size), float)
    needed = -(-length // block_size)
    table = [*rng.sample(range(num_blocks), needed), *[NO_BLOCK] * spare]
    return {
        "cache": rows.reshape(num_blocks, block_size, 1) + np.arange(dim) / 10,
        "blocks": np.array(table, np.int64),
        "length": length,
    }


def _smaller_gathers(given: Given) -> Iterator[Given]:
    if given["length"]:
        yield {**given, "length": given["length"] - 1}
    if given["cache"].shape[2] > 1:
        yield {**given, "cache": given["cache"][:, :, :1]}


def _due_gather(cache: np.ndarray, blocks: np.ndarray, length: int) -> np.ndarray:
    size, dim = cache.shape[1:]
    return cache[blocks[: -(-length // size)]].reshape(-1, dim)[:length]


def _read_gather(answer: Any, given: Given) -> np.ndarray:
    dim = given["cache"].shape[2]
    many = len(answer) if isinstance(answer, np.ndarray | list | tuple) else 1
    if not many and given["length"]:
        raise WrongForm(f"The answer has no rows; the sequence has {count(given['length'], 'token')}.")
    if not many:  # a shape (0, dim) does not survive the way from the child
        return np.zeros((0, dim))
    return _array(answer, "The answer", (many, dim))


def _row_a_token(given: Given, answer: np.ndarray, due: np.ndarray) -> bool:
    return len(answer) == len(due)


def _own_rows(given: Given, answer: np.ndarray, due: np.ndarray) -> bool:
    own = due[:, 0].tolist()
    return all(any(_same(row, each) for each in own) for row in answer[:, 0].tolist())


def _in_order(given: Given, answer: np.ndarray, due: np.ndarray) -> bool:
    return _same(answer, due)


def _explain_gather(given: Given, due: np.ndarray) -> str:
    return (
        f"{count(given['length'], 'token')}, {given['cache'].shape[1]} in a block" if given["length"] else ""
    )


GATHER = Task(
    id="ex04.2",
    title="the paged gather",
    function="gather",
    cases=_gathers,
    smaller=_smaller_gathers,
    due=_due_gather,
    read=_read_gather,
    properties=(
        Property("one row for each token", _row_a_token),
        Property("no row is a neighbor's", _own_rows),
        Property("rows stand in the order of the tokens", _in_order),
    ),
    explain=_explain_gather,
)


# ----- ex04.3 -----


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
    scores, values = _numbers(rng, rows, tile), _numbers(rng, tile, dim)
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


def _due_mask(
    scores: np.ndarray, values: np.ndarray, first_token: int, last_visible: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    scores, values = scores.copy(), values.copy()
    for row, last in enumerate(last_visible.tolist()):
        scores[row, max(0, last + 1 - first_token) :] = -np.inf
    values[max(0, length - first_token) :] = 0.0
    return scores, values


def _read_mask(answer: Any, given: Given) -> tuple[np.ndarray, np.ndarray]:
    scores, values = parts(answer, ("scores", "values"))
    return _array(scores, "scores", given["scores"].shape), _array(values, "values", given["values"].shape)


def _visible_stays(given: Given, answer: Any, due: Any) -> bool:
    seen = np.isfinite(due[0])
    return _same(answer[0][seen], due[0][seen])


def _ahead_is_masked(given: Given, answer: Any, due: Any) -> bool:
    return bool((answer[0][~np.isfinite(due[0])] == -np.inf).all())


def _beyond_is_zero(given: Given, answer: Any, due: Any) -> bool:
    own = max(0, given["length"] - given["first_token"])
    return bool((answer[1][own:] == 0).all())


def _own_values_stay(given: Given, answer: Any, due: Any) -> bool:
    return _same(answer[1], due[1])


MASK = Task(
    id="ex04.3",
    title="the mask, and why V too",
    function="mask_tile",
    cases=_masks,
    smaller=_smaller_masks,
    due=_due_mask,
    read=_read_mask,
    properties=(
        Property("a score that may be seen stays as it was", _visible_stays),
        Property("what a row may not see scores -inf", _ahead_is_masked),
        Property("values beyond the end are zero", _beyond_is_zero),
        Property("values within the length stay as they were", _own_values_stay),
    ),
    explain=_nothing_to_explain,
)


# ----- ex04.4 -----


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
    pieces = (tuple(_row_of(np.array(scores), _numbers(rng, len(scores), dim))) for scores in (left, right))
    return dict(zip(("left", "right"), pieces, strict=True))


def _smaller_splits(given: Given) -> Iterator[Given]:
    if len(given["left"][2]) > 1:
        yield {side: (*piece[:2], piece[2][:1]) for side, piece in given.items()}


def _due_combine(left: Any, right: Any) -> np.ndarray:
    """A mean of the pieces' own means, each with its share of all weights."""
    if not left[1] or not right[1]:
        return right[2] / right[1] if right[1] else left[2] / left[1]
    log_left, log_right = left[0] + np.log(left[1]), right[0] + np.log(right[1])
    share = np.exp(log_left - np.logaddexp(log_left, log_right))
    return share * left[2] / left[1] + (1 - share) * right[2] / right[1]


def _read_combine(answer: Any, given: Given) -> np.ndarray:
    return _array(answer, "The answer", given["left"][2].shape)


def _combined_is_finite(given: Given, answer: np.ndarray, due: np.ndarray) -> bool:
    return _finite(answer)


def _empty_changes_nothing(given: Given, answer: np.ndarray, due: np.ndarray) -> bool:
    return bool(given["left"][1] and given["right"][1]) or _same(answer, due)


def _equal_bests_add_up(given: Given, answer: np.ndarray, due: np.ndarray) -> bool:
    return given["left"][0] != given["right"][0] or _same(answer, due)


def _larger_best_decides(given: Given, answer: np.ndarray, due: np.ndarray) -> bool:
    return _same(answer, due)


COMBINE = Task(
    id="ex04.4",
    title="the combine of two splits",
    function="combine",
    cases=_splits,
    smaller=_smaller_splits,
    due=_due_combine,
    read=_read_combine,
    properties=(
        Property("nothing overflows and nothing becomes NaN", _combined_is_finite),
        Property("an empty piece changes nothing", _empty_changes_nothing),
        Property("pieces with the same best add up", _equal_bests_add_up),
        Property("each piece counts in units of the larger best", _larger_best_decides),
    ),
    explain=_nothing_to_explain,
)

EX04 = Exercise("ex04", (FOLD, GATHER, MASK, COMBINE), packages=("numpy",))
