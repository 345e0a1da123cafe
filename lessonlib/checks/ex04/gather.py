"""ex04.2: rows of a paged cache in the order of their tokens."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np

from lessonlib.checks.ex04.rows import agree, read_array
from lessonlib.checks.spec import Given, Task, WrongForm, count, promise

NO_BLOCK = 10**6  # a block id that no cache has


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


def _expected_gather(cache: np.ndarray, blocks: np.ndarray, length: int) -> np.ndarray:
    size, dim = cache.shape[1:]
    return cache[blocks[: -(-length // size)]].reshape(-1, dim)[:length]


def _read_gather(answer: Any, given: Given) -> np.ndarray:
    dim = given["cache"].shape[2]
    many = len(answer) if isinstance(answer, np.ndarray | list | tuple) else 1
    if not many and given["length"]:
        raise WrongForm(f"The answer has no rows; the sequence has {count(given['length'], 'token')}.")
    if not many:  # a shape (0, dim) does not survive the way from the child
        return np.zeros((0, dim))
    return read_array(answer, "The answer", (many, dim))


@promise("one row for each token")
def _row_a_token(given: Given, answer: np.ndarray, expected: np.ndarray) -> bool:
    return len(answer) == len(expected)


@promise("no row is a neighbor's")
def _own_rows(given: Given, answer: np.ndarray, expected: np.ndarray) -> bool:
    own = expected[:, 0].tolist()
    return all(any(agree(row, each) for each in own) for row in answer[:, 0].tolist())


@promise("rows stand in the order of the tokens")
def _in_order(given: Given, answer: np.ndarray, expected: np.ndarray) -> bool:
    return agree(answer, expected)


def _explain_gather(given: Given, expected: np.ndarray) -> str:
    return (
        f"{count(given['length'], 'token')}, {given['cache'].shape[1]} in a block" if given["length"] else ""
    )


GATHER = Task(
    id="ex04.2",
    title="the paged gather",
    function="gather",
    cases=_gathers,
    smaller=_smaller_gathers,
    expected=_expected_gather,
    read=_read_gather,
    properties=(
        _row_a_token,
        _own_rows,
        _in_order,
    ),
    explain=_explain_gather,
    hints=(
        "Where does token 17 lie, with blocks of 16? In which block of the table, and at which place in it?",
        "tokens // block_size is the entry of the table, tokens % block_size the place. Look up only what the "
        "length needs: the other entries may be any number.",
        "tokens = np.arange(length); cache[blocks[tokens // block_size], tokens % block_size] is all of it.",
    ),
)
