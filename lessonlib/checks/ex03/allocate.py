"""ex03.1: `allocate`, `append`, `release` and `free_list`, the life of a block table."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any, NamedTuple

from lessonlib.checks.cases import DRAWN, fewer, lower
from lessonlib.checks.ex03.blocks import LAST_FIRST, block_ids, blocks_for, pool_with
from lessonlib.checks.spec import Given, Task, count, parts, promise, whole_list
from lessonlib.scheduling.block_pool import BlockPool
from lessonlib.scheduling.kv_cache import KVCache
from lessonlib.scheduling.request import RequestState


class Blocks(NamedTuple):
    """What `allocate` and `append` answer."""

    free: list[int]
    table: list[int] | None


def _memory(rng: Random) -> Iterator[Given]:
    """Each function with blocks to spare, then with few, then with many tokens."""
    for num_free, block_size, num_tokens in product((6, 1, 0, 2, 3), (1, 2, 3), (1, 2, 3, 4, 6)):
        yield {"free": block_ids(rng, num_free), "num_tokens": num_tokens, "block_size": block_size}
    for num_free, held, block_size in product((6, 1, 0, 2), (1, 2, 0), (1, 2, 3)):
        for more in range(block_size + 2):
            yield _table_to_grow(rng, held, num_free, held * block_size + more, block_size)
        if held:
            yield _table_to_grow(rng, held, num_free, (held - 1) * block_size + 1, block_size)
    for held, num_free in product((1, 2, 3), (0, 1, 2)):
        yield _table_to_free(rng, held, num_free)
    yield from ({"num_blocks": num_blocks} for num_blocks in (2, 3, 5, 100))
    for _ in range(DRAWN):
        held, num_free, block_size = rng.randint(0, 9), rng.randint(0, 9), rng.choice((1, 4, 16))
        num_tokens = rng.randint(1, (held + num_free + 2) * block_size)
        yield _table_to_grow(rng, held, num_free, num_tokens, block_size)
        yield {"free": block_ids(rng, num_free), "num_tokens": num_tokens, "block_size": block_size}
        yield _table_to_free(rng, held + 1, num_free)


def _table_to_grow(rng: Random, held: int, num_free: int, num_tokens: int, block_size: int) -> Given:
    memory = _table_to_free(rng, held, num_free)
    return {**memory, "num_tokens": max(1, num_tokens), "block_size": block_size}


def _table_to_free(rng: Random, held: int, num_free: int) -> Given:
    ids = block_ids(rng, held + num_free)
    return {"free": ids[held:], "table": ids[:held]}


def _smaller_memory(given: Given) -> Iterator[Given]:
    if "num_blocks" in given:
        yield from lower(given, "num_blocks", 2)
        return
    if "num_tokens" not in given:
        yield from fewer(given, "table", least=1)
        yield from fewer(given, "free")
        return
    for smaller in _smaller_growth(given):
        if _spare(smaller) == _spare(given):
            yield smaller


def _smaller_growth(given: Given) -> Iterator[Given]:
    if "table" in given:
        yield from fewer(given, "table")
    yield from fewer(given, "free")
    yield from lower(given, "num_tokens", 1)
    yield from lower(given, "block_size", 1)
    if given["num_tokens"] > given["block_size"]:  # a block less, of what is wanted and of what there is
        less = {**given, "num_tokens": given["num_tokens"] - given["block_size"]}
        yield from fewer(less, "free")
        yield from fewer(less, "table") if "table" in given else ()


def _spare(given: Given) -> int:
    """1 where a free block is left over, 0 where there are just enough, -1 where there are too few.

    The smaller case stays like the larger one: who counts blocks wrong is not told of a refusal.
    """
    missing = blocks_for(given["num_tokens"], given["block_size"]) - len(given.get("table", []))
    spare = len(given["free"]) - max(0, missing)
    return (spare > 0) - (spare < 0)


def expected_memory(
    free: list[int] | None = None,
    table: list[int] | None = None,
    num_tokens: int = 0,
    block_size: int = 1,
    num_blocks: int = 0,
) -> Any:
    """What `KVCache` does: a new pool, a table let go of (no tokens), or one that grows from nothing on."""
    if free is None:
        return BlockPool(num_blocks).free_blocks()
    pool = pool_with(free, table or [])
    pool.block_size = block_size
    cache, request = KVCache(pool), RequestState("", 1, 1, block_table=list(table or []))
    if not num_tokens:
        cache.free(request)
        return pool.free_blocks()
    if not cache.can_append(request, num_tokens):
        return Blocks(free, None)
    cache.append(request, num_tokens)
    return Blocks(pool.free_blocks(), request.block_table)


def _read_memory(answer: Any, given: Given) -> Any:
    if "num_tokens" not in given:
        return whole_list(answer, "the free list")
    free, table = parts(answer, ("free", "table"))
    return Blocks(whole_list(free, "free"), None if table is None else whole_list(table, "table"))


def _everything(answer: Any) -> list[int]:
    """All block ids of an answer."""
    return [*answer.free, *(answer.table or [])] if isinstance(answer, Blocks) else answer


@promise("block 0 is never handed out")
def _null_block_stays(given: Given, answer: Any, expected: Any) -> bool:
    return 0 not in _everything(answer)


@promise("whoever fits gets a table, and nobody else does")
def _fits_or_not(given: Given, answer: Any, expected: Any) -> bool:
    return not isinstance(expected, Blocks) or (answer.table is None) == (expected.table is None)


@promise("no block is lost and none is held twice")
def _blocks_conserved(given: Given, answer: Any, expected: Any) -> bool:
    """A refused request still has the table that it had; it is no part of the answer, nor of the due one."""
    return sorted(_everything(answer)) == sorted(_everything(expected))


@promise("a table has just the blocks that its tokens need")
def _just_enough(given: Given, answer: Any, expected: Any) -> bool:
    return len(answer.table or []) == len(expected.table or []) if isinstance(expected, Blocks) else True


@promise("a table grows at its end")
def _grows_at_end(given: Given, answer: Any, expected: Any) -> bool:
    table = given.get("table", [])
    return not isinstance(expected, Blocks) or expected.table is None or answer.table[: len(table)] == table


@promise("the block that has been free longest is handed out first")
def _longest_free_first(given: Given, answer: Any, expected: Any) -> bool:
    return tuple(given) == ("free", "table") or answer == expected


@promise(LAST_FIRST)
def _last_one_first(given: Given, answer: Any, expected: Any) -> bool:
    return answer == expected


def _explain_memory(given: Given, expected: Any) -> str:
    if "num_tokens" not in given:
        return ""
    size, tokens = given["block_size"], given["num_tokens"]
    needed = f"{count(tokens, 'token')} in blocks of {size} are {count(blocks_for(tokens, size), 'block')}"
    return f"{needed}, {len(given['free'])} free"


MEMORY = Task(
    id="ex03.1",
    title="allocate, append, release",
    function="allocate",
    cases=_memory,
    smaller=_smaller_memory,
    expected=expected_memory,
    read=_read_memory,
    properties=(
        _null_block_stays,
        _fits_or_not,
        _blocks_conserved,
        _just_enough,
        _grows_at_end,
        _longest_free_first,
        _last_one_first,
    ),
    explain=_explain_memory,
    others={
        "append": ("free", "table", "num_tokens", "block_size"),
        "release": ("free", "table"),
        "free_list": ("num_blocks",),
    },
    hints=(
        "How many blocks do n tokens need? Try it with one token, with a full block, and with one token more.",
        "The number is -(-num_tokens // block_size). `allocate` is `append` to an empty table. Where too few are "
        "free, nothing may have been taken.",
        "missing = max(0, needed - len(table)); if missing > len(free): (free, None); else (free[missing:], "
        "table + free[:missing]). `release` is free + table[::-1]. The null block keeps `free_list` from 0.",
    ),
)
