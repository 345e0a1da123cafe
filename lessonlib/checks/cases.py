"""Inputs that several tasks share, lists of lengths and a number of slots; and how a case becomes smaller."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any

from lessonlib.checks.spec import Given

DRAWN = 30


def lengths_and_slots(rng: Random) -> Iterator[Given]:
    """Every list of up to 3 lengths up to 3, in up to 3 slots, shortest first; then longer ones as drawn."""
    small = [
        {"lengths": list(lengths), "slots": slots}
        for many in (1, 2, 3)
        for lengths in product((1, 2, 3), repeat=many)
        for slots in (1, 2, 3)
    ]
    yield from sorted(small, key=_size)
    for _ in range(DRAWN):
        longest = rng.choice((4, 12, 60))
        lengths = [rng.randint(1, longest) for _ in range(rng.randint(4, 40))]
        yield {"lengths": lengths, "slots": rng.randint(1, 12)}


def _size(given: Given) -> tuple[int, int, int]:
    return len(given["lengths"]), sum(given["lengths"]), given["slots"]


def smaller_lengths(given: Given) -> Iterator[Given]:
    """One request less, one slot less, or one request shorter."""
    lengths, slots = given["lengths"], given["slots"]
    if len(lengths) > 1:
        for index in range(len(lengths)):
            yield {"lengths": without(lengths, index), "slots": slots}
    if slots > 1:
        yield {"lengths": lengths, "slots": slots - 1}
    for index, length in enumerate(lengths):
        for shorter in {1, length // 2, length - 1} - {0, length}:
            yield {"lengths": [*lengths[:index], shorter, *lengths[index + 1 :]], "slots": slots}


def without(items: list[Any], index: int) -> list[Any]:
    """The list without the item at one index."""
    return items[:index] + items[index + 1 :]


def fewer(given: Given, name: str, least: int = 0) -> Iterator[Given]:
    """The same case with one item less in one of its lists."""
    if len(given[name]) > least:
        for index in range(len(given[name])):
            yield {**given, name: without(given[name], index)}


def lower(given: Given, name: str, least: int) -> Iterator[Given]:
    """The same case with one of its numbers smaller."""
    for number in sorted({least, (least + given[name]) // 2, given[name] - 1}):
        if least <= number < given[name]:
            yield {**given, name: number}
