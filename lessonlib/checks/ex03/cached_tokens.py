"""ex03.4: `cached_tokens` and `block_hashes`, how a prefix is found."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any

from lessonlib.checks.cases import DRAWN, fewer, lower
from lessonlib.checks.ex03.blocks import blocks_for
from lessonlib.checks.spec import Given, Task, WrongForm, kind, promise, show, whole
from lessonlib.scheduling.block_pool import BlockPool, block_hash
from lessonlib.scheduling.kv_cache import KVCache
from lessonlib.scheduling.request import RequestState

DIGITS = 64  # of a sha256


def _texts(rng: Random) -> Iterator[Given]:
    """Prompts after other prompts, short ones first; then what each block's hash is."""
    yield {"tokens": [1], "salt": "", "earlier": [], "block_size": 1}
    yield from (_text(rng, block_size - 1, "", block_size) for block_size in (2, 3, 4))
    for size in (1, 2):
        yield from _meant_to_mislead(size)
    for block_size, length in product((1, 2), (1, 2, 3, 4)):
        for salts in (("", ""), ("a", "a"), ("a", "b"), ("", "a")):
            yield _prompt_after(rng, 1, length, block_size, salts)
            yield _prompt_after(rng, 2, length, block_size, salts)
    for _ in range(DRAWN):
        yield _prompt_after(rng, rng.randint(0, 4), rng.randint(1, 20), rng.choice((2, 3, 4)), ("", "a", "b"))
    for length, block_size in product((1, 2, 3, 5), (1, 2)):
        for salt in ("", "a"):
            yield _text(rng, length, salt, block_size)
    for _ in range(DRAWN):
        yield _text(rng, rng.randint(1, 40), rng.choice(("", "tenant")), rng.choice((3, 4, 16)))


def _meant_to_mislead(size: int) -> Iterator[Given]:
    """The same prompt again; its second block behind another first one; its second and third so.

    And blocks that end alike, and the same prompt before and after one of which nothing is shared.
    """
    first, second, third, other = ([token] * size for token in (1, 2, 3, 4))
    for tokens, *texts in (
        (first + second, first + second),
        (first + second, other[1:] + first[:1] + second),
        (first + second + third, other + second + third),
        (first + second + third + other, first + second, other + second + third),
        (first + second, other + third, first + second),
        (first + second, first + second, other + third),
    ):
        for salt in ("", "a"):
            earlier = [(text, salt) for text in texts]
            yield {"tokens": tokens, "salt": salt, "earlier": earlier, "block_size": size}


def _text(rng: Random, length: int, salt: str, block_size: int) -> Given:
    tokens = [rng.randrange(300, 50_000) for _ in range(length)]
    return {"tokens": tokens, "salt": salt, "block_size": block_size}


def _bits(rng: Random, length: int) -> list[int]:
    """Tokens that often agree by chance."""
    return [rng.randrange(2) for _ in range(length)]


def _prompt_after(rng: Random, many: int, length: int, block_size: int, salts: tuple[str, ...]) -> Given:
    """A prompt after so many others, some of which begin like it, or go on like it behind another word."""
    tokens = _bits(rng, length)
    earlier = []
    for _ in range(many):
        alike = rng.choice((length, rng.randint(0, length)))
        text = tokens[:alike] + _bits(rng, rng.randint(0, block_size)) or [1]
        if rng.random() < 0.3:
            text[0] = 1 - text[0]
        earlier.append((text, rng.choice(salts[1:])))
    return {"tokens": tokens, "salt": salts[0], "earlier": earlier, "block_size": block_size}


def _smaller_texts(given: Given) -> Iterator[Given]:
    if "earlier" in given:
        yield from fewer(given, "earlier")
        for index, (text, salt) in enumerate(given["earlier"]):
            if len(text) > 1:
                others = given["earlier"]
                yield {**given, "earlier": [*others[:index], (text[:-1], salt), *others[index + 1 :]]}
    if len(given["tokens"]) > 1:
        yield {**given, "tokens": given["tokens"][:-1]}
    yield from lower(given, "block_size", 1)
    for index, token in enumerate(given["tokens"]):
        if token > 300:
            yield {**given, "tokens": [*given["tokens"][:index], 300, *given["tokens"][index + 1 :]]}


def _expected_texts(
    tokens: list[int], salt: str, block_size: int, earlier: list[tuple[list[int], str]] | None = None
) -> Any:
    """What `KVCache` finds once the earlier texts are stored; without any, `block_hash` along the text."""
    if earlier is None:
        return _chain(tokens, salt, block_size)
    texts = [*earlier, (tokens, salt)]
    num_blocks = 1 + sum(blocks_for(len(text), block_size) for text, _ in texts)
    cache = KVCache(BlockPool(num_blocks, block_size), prefix_caching=True)
    states = [RequestState("", len(text), 1, token_ids=list(text), salt=tenant) for text, tenant in texts]
    for state in states[:-1]:
        cache.allocate(state, state.prompt_tokens, cache.cached_prefix(state))
        cache.commit(state, state.prompt_tokens)
    return len(cache.cached_prefix(states[-1])) * block_size


def _chain(tokens: list[int], salt: str, block_size: int) -> list[str]:
    parent, hashes = hashlib.sha256(salt.encode()).digest(), []
    for start in range(0, len(tokens) - block_size + 1, block_size):
        parent = block_hash(parent, tokens[start : start + block_size])
        hashes.append(parent.hex())
    return hashes


def _read_texts(answer: Any, given: Given) -> Any:
    if "earlier" in given:
        return whole(answer, "the number of tokens")
    if not isinstance(answer, list | tuple):
        raise WrongForm(f"the hashes should be a list; what came back is {kind(answer)}.")
    for digest in answer:
        if not isinstance(digest, str):
            raise WrongForm(f"each hash should be a string; {show(digest)} is {kind(digest)}.")
        if len(digest) != DIGITS:
            raise WrongForm(f"each hash should have {DIGITS} digits; {show(digest)} has {len(digest)}.")
    return list(answer)


@promise("only full blocks are shared")
def _hits_are_full_blocks(given: Given, answer: Any, expected: Any) -> bool:
    return "earlier" not in given or answer % given["block_size"] == 0


@promise("at least one token is left to compute")
def _one_left(given: Given, answer: Any, expected: Any) -> bool:
    return "earlier" not in given or answer < len(given["tokens"])


@promise("nothing is shared between salts")
def _salts_apart(given: Given, answer: Any, expected: Any) -> bool:
    """Looks only where nobody has stored anything under this salt."""
    if "earlier" not in given or any(salt == given["salt"] for _, salt in given["earlier"]):
        return True
    return answer <= 0


@promise("a block is a hit only where all before it agrees")
def _all_before_agrees(given: Given, answer: Any, expected: Any) -> bool:
    return "earlier" not in given or answer <= expected


@promise("whatever is stored is found")
def _found(given: Given, answer: Any, expected: Any) -> bool:
    return "earlier" not in given or answer == expected


@promise("only full blocks have a hash")
def _full_blocks_hashed(given: Given, answer: Any, expected: Any) -> bool:
    return "earlier" in given or len(answer) == len(expected)


@promise("a hash is the sha256 of the parent and the tokens, from the salt on")
def _exact_hash(given: Given, answer: Any, expected: Any) -> bool:
    return answer == expected


PREFIXES = Task(
    id="ex03.4",
    title="a chain of hashes",
    function="cached_tokens",
    cases=_texts,
    smaller=_smaller_texts,
    expected=_expected_texts,
    read=_read_texts,
    properties=(
        _hits_are_full_blocks,
        _one_left,
        _salts_apart,
        _all_before_agrees,
        _found,
        _full_blocks_hashed,
        _exact_hash,
    ),
    others={"block_hashes": ("tokens", "salt", "block_size")},
    hints=(
        "Each hash is made with the hash before it. What is the first one made with?",
        "parent = sha256 of the salt. For each full block: parent = sha256(parent + the block's bytes).digest(), "
        "and its hex digits go on the list. A half block has no hash.",
        "For `cached_tokens`, put the hashes of all earlier texts into a set, each with its own salt. Walk along "
        "block_hashes(tokens[:-1], salt, block_size), and stop at the first that is not in it. Leaving off the "
        "last token is what keeps one to compute.",
    ),
)
