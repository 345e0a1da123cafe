"""ex05.1: the flat batch of a step, as the model reads it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any, NamedTuple

from lessonlib.checks.cases import DRAWN, fewer
from lessonlib.checks.ex05.requests import Request, read_list, replaced
from lessonlib.checks.spec import Given, Task, count, parts, promise, whole_list


class Batch(NamedTuple):
    """What `step_inputs` answers."""

    token_ids: list[int]
    positions: list[int]
    slot_mapping: list[int]
    query_start_loc: list[int]
    seq_lens: list[int]
    block_table: list[list[int]]


class Shape(NamedTuple):
    """One row in numbers: tokens computed, scheduled and left for later, and blocks to spare."""

    computed: int
    scheduled: int
    later: int = 0
    spare: int = 0


WRITES = Shape(computed=3, scheduled=1)


def _batches(rng: Random) -> Iterator[Given]:
    """One row in every state, then two and three of them, then larger batches."""
    for block_size, computed, scheduled in product((2, 1, 3), (0, 1, 2, 3, 4), (1, 2, 3)):
        for later, spare in ((0, 0), (2, 0), (0, 1)):
            yield _batch(rng, [Shape(computed, scheduled, later, spare)], block_size)
    for block_size, reads in product((2, 3), (WRITES, Shape(0, 3), Shape(2, 2, 3), Shape(1, 5, 0, 1))):
        yield _batch(rng, [WRITES, reads], block_size)
        yield _batch(rng, [reads, Shape(0, 1)], block_size)
        yield _batch(rng, [WRITES, Shape(6, 1), reads], block_size)
    for _ in range(DRAWN):
        writing = [Shape(rng.randint(1, 30), 1) for _ in range(rng.randint(0, 5))]
        reading = [
            Shape(
                rng.choice((0, rng.randint(0, 20))), rng.randint(1, 20), rng.choice((0, 9)), rng.randint(0, 1)
            )
            for _ in range(rng.randint(0 if writing else 1, 3))
        ]
        yield _batch(rng, writing + reading, rng.choice((1, 2, 4, 16)))


def _batch(rng: Random, shapes: list[Shape], block_size: int) -> Given:
    """Rows of these shapes. All tokens differ, and blocks have any order, as after a while of use."""
    lengths = [shape.computed + shape.scheduled + shape.later for shape in shapes]
    tokens = iter(rng.sample(range(10, 1_000), sum(lengths)))
    sizes = [-(-length // block_size) + shape.spare for length, shape in zip(lengths, shapes, strict=True)]
    # Odd ids only: the block beside one's own is never one's own too.
    blocks = iter(rng.sample(range(1, 2 * sum(sizes) + 2, 2), sum(sizes)))
    rows = [
        {
            "token_ids": [next(tokens) for _ in range(length)],
            "num_computed_tokens": shape.computed,
            "num_scheduled_tokens": shape.scheduled,
            "block_table": [next(blocks) for _ in range(size)],
        }
        for shape, length, size in zip(shapes, lengths, sizes, strict=True)
    ]
    return {"rows": rows, "block_size": block_size}


def _smaller_batches(given: Given) -> Iterator[Given]:
    """A row less, a token less, or a block less that nobody needs."""
    yield from fewer(given, "rows", least=1)
    for slot, row in enumerate(given["rows"]):
        for smaller in _smaller_rows(row):
            if len(smaller["token_ids"]) <= len(smaller["block_table"]) * given["block_size"]:
                yield replaced(given, "rows", slot, smaller)


def _smaller_rows(row: Request) -> Iterator[Request]:
    tokens, computed, scheduled = (
        row[name] for name in ("token_ids", "num_computed_tokens", "num_scheduled_tokens")
    )
    if computed:
        yield {**row, "token_ids": tokens[1:], "num_computed_tokens": computed - 1}
    if scheduled > 1:
        yield {**row, "token_ids": tokens[:-1], "num_scheduled_tokens": scheduled - 1}
    if len(tokens) > computed + scheduled:
        yield {**row, "token_ids": tokens[:-1]}
    yield {**row, "block_table": row["block_table"][:-1]}


def _expected_batch(rows: list[Request], block_size: int) -> Batch:
    """Every place that a request holds, in order of position; this step's are a piece of that."""
    expected = Batch([], [], [], [0], [], [])
    widest = max(len(row["block_table"]) for row in rows)
    for row in rows:
        held = [
            slot
            for block in row["block_table"]
            for slot in range(block * block_size, (block + 1) * block_size)
        ]
        start, many = row["num_computed_tokens"], row["num_scheduled_tokens"]
        this_step = slice(start, start + many)
        expected.token_ids.extend(row["token_ids"][this_step])
        expected.positions.extend(range(len(held))[this_step])
        expected.slot_mapping.extend(held[this_step])
        expected.query_start_loc.append(expected.query_start_loc[-1] + many)
        expected.seq_lens.append(start + many)
        expected.block_table.append([*row["block_table"], *[0] * widest][:widest])
    return expected


def _read_batch(answer: Any, given: Given) -> Batch:
    *_, tables = read = parts(answer, Batch._fields)
    ids, positions, slots, starts, lens = map(whole_list, read[:-1], Batch._fields)
    by_row = [whole_list(table, "each table of block_table") for table in read_list(tables, "block_table")]
    return Batch(ids, positions, slots, starts, lens, by_row)


@promise("a row has as many tokens as it was given for this step")
def _as_many_tokens(given: Given, answer: Batch, expected: Batch) -> bool:
    return {len(part) for part in answer[:3]} == {len(expected.token_ids)}


@promise("a row goes on with the first token that is not computed")
def _goes_on(given: Given, answer: Batch, expected: Batch) -> bool:
    return answer.token_ids == expected.token_ids


@promise("a position counts from the beginning of the request, not of the batch")
def _own_positions(given: Given, answer: Batch, expected: Batch) -> bool:
    return answer.positions == expected.positions


@promise("no two tokens are stored in one place")
def _places_differ(given: Given, answer: Batch, expected: Batch) -> bool:
    return len(set(answer.slot_mapping)) == len(answer.slot_mapping)


@promise("nobody writes into a block of somebody else")
def _own_blocks(given: Given, answer: Batch, expected: Batch) -> bool:
    slots = iter(answer.slot_mapping)
    return all(
        next(slots) // given["block_size"] in row["block_table"]
        for row in given["rows"]
        for _ in range(row["num_scheduled_tokens"])
    )


@promise("a token is stored where its position is in the block table")
def _by_the_table(given: Given, answer: Batch, expected: Batch) -> bool:
    return answer.slot_mapping == expected.slot_mapping


@promise("query_start_loc begins at 0 and ends at the number of tokens")
def _from_zero_to_the_end(given: Given, answer: Batch, expected: Batch) -> bool:
    return [*answer.query_start_loc[:1], *answer.query_start_loc[-1:]] == [0, len(expected.token_ids)]


@promise("a row's tokens lie between its two places in query_start_loc")
def _rows_apart(given: Given, answer: Batch, expected: Batch) -> bool:
    return answer.query_start_loc == expected.query_start_loc


@promise("attention sees what was stored before and this step's tokens")
def _sees_this_step(given: Given, answer: Batch, expected: Batch) -> bool:
    return answer.seq_lens == expected.seq_lens


@promise("every table is as wide as the widest")
def _one_width(given: Given, answer: Batch, expected: Batch) -> bool:
    return list(map(len, answer.block_table)) == list(map(len, expected.block_table))


@promise("a table is its request's blocks, then null blocks")
def _blocks_then_null(given: Given, answer: Batch, expected: Batch) -> bool:
    return answer == expected


def _explain_batch(given: Given, expected: Batch) -> str:
    shares = [row["num_scheduled_tokens"] for row in given["rows"]]
    return f"{count(len(shares), 'row')} of {', '.join(map(str, shares))}, blocks of {given['block_size']}"


LAYOUT = Task(
    id="ex05.1",
    title="one flat batch",
    function="step_inputs",
    cases=_batches,
    smaller=_smaller_batches,
    expected=_expected_batch,
    read=_read_batch,
    properties=(
        _as_many_tokens,
        _goes_on,
        _own_positions,
        _places_differ,
        _own_blocks,
        _by_the_table,
        _from_zero_to_the_end,
        _rows_apart,
        _sees_this_step,
        _one_width,
        _blocks_then_null,
    ),
    explain=_explain_batch,
    hints=(
        "Write down one row by hand: which positions does it compute in this step, and where do they go?",
        "The positions are range(computed, computed + scheduled), counted in the request. The place of position p "
        "is table[p // block_size] * block_size + p % block_size.",
        "query_start_loc begins with [0]; after each row append len(token_ids). seq_lens gets computed + "
        "scheduled. At the end fill every table with 0 up to the longest.",
    ),
)
