"""ex06.2: a speed-up taken apart into fewer steps and quicker ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from random import Random
from statistics import median
from typing import Any

from lessonlib.checks.cases import DRAWN, fewer
from lessonlib.checks.spec import Given, Task, WrongForm, close, kind, number, promise

Factors = list[tuple[float, float]]


def _chains(rng: Random) -> Iterator[Given]:
    """Two that ran once, then more of them, then several runs and some who could not."""
    for before, after in (
        ((10, 4.0), (5, 2.0)),
        ((10, 4.0), (10, 2.0)),
        ((10, 4.0), (20, 4.0)),
        ((8, 2.0), (4, 2.0)),
    ):
        yield {"chain": [_contender(before[0], [before[1]]), _contender(after[0], [after[1]])]}
    yield {"chain": [_contender(10, [4.0])]}
    yield {"chain": [_contender(8, [8.0]), _contender(4, [2.0]), _contender(2, [3.0])]}
    for many in (3, 4, 6):
        for _ in range(5):
            yield {"chain": [_drawn(rng, runs=1) for _ in range(many)]}
    yield {"chain": [_contender(10, [4.0]), _contender(5, []), _contender(5, [1.0])]}
    yield {"chain": [_contender(5, []), _contender(10, [4.0]), _contender(5, [1.0])]}
    yield {"chain": [_contender(10, [4.0]), _contender(10, [1.0, 2.0, 9.0])]}
    yield {"chain": [_contender(10, [4.0]), _contender(10, [9.0, 1.0, 3.0, 2.0])]}
    for _ in range(DRAWN):
        chain = [_drawn(rng, runs=rng.choice((0, 1, 2, 3, 4, 5))) for _ in range(rng.randint(2, 7))]
        yield {"chain": [*chain, _drawn(rng, runs=3)]}


def _contender(steps: int, seconds: list[float]) -> dict[str, Any]:
    return {"steps": steps, "seconds": seconds}


def _drawn(rng: Random, runs: int) -> dict[str, Any]:
    usual = rng.uniform(2, 60)
    return _contender(rng.randint(100, 2_000), [round(usual * rng.uniform(0.9, 1.6), 2) for _ in range(runs)])


def _smaller_chains(given: Given) -> Iterator[Given]:
    """A contender less, or a run less of one, where somebody is left who ran."""
    for smaller in fewer(given, "chain", least=1):
        if any(each["seconds"] for each in smaller["chain"]):
            yield smaller
    for index, each in enumerate(given["chain"]):
        if len(each["seconds"]) > 1:
            chain = list(given["chain"])
            chain[index] = {**each, "seconds": each["seconds"][:-1]}
            yield {"chain": chain}


def _ran(given: Given) -> list[dict[str, Any]]:
    return [each for each in given["chain"] if each["seconds"]]


def _expected_chain(chain: list[dict[str, Any]]) -> Factors:
    pace = [(each["steps"], median(each["seconds"]) / each["steps"]) for each in chain if each["seconds"]]
    return [(a[0] / b[0], a[1] / b[1]) for a, b in pairwise(pace)]


def _read_chain(answer: Any, given: Given) -> Factors:
    if not isinstance(answer, list | tuple):
        raise WrongForm(f"The answer should be a list of (fewer, quicker); what came back is {kind(answer)}.")
    pairs = []
    for each in answer:
        if not isinstance(each, list | tuple) or len(each) != 2:
            raise WrongForm("Each item should be a pair (fewer, quicker).")
        pairs.append((number(each[0], "fewer"), number(each[1], "quicker")))
    return pairs


def _has_one_run_each(given: Given) -> bool:
    return all(len(each["seconds"]) == 1 for each in _ran(given))


@promise("whoever has no run is left out")
def _one_each(given: Given, answer: Factors, expected: Factors) -> bool:
    return len(answer) == len(expected)


@promise("there are fewer steps where there were more before")
def _fewer_steps(given: Given, answer: Factors, expected: Factors) -> bool:
    """Looks at two contenders; others look at more."""
    return len(expected) != 1 or close(answer[0][0], expected[0][0])


@promise("steps are quicker where each takes less time")
def _quicker_steps(given: Given, answer: Factors, expected: Factors) -> bool:
    """Looks at two contenders with one run each; others look at more."""
    return len(expected) != 1 or not _has_one_run_each(given) or close(answer[0][1], expected[0][1])


@promise("all factors multiply to the whole")
def _multiply(given: Given, answer: Factors, expected: Factors) -> bool:
    """Looks at contenders with one run each."""
    products = (math.prod(a * b for a, b in factors) for factors in (answer, expected))
    return not _has_one_run_each(given) or close(*products)


@promise("each contender stands against the one before")
def _neighbors(given: Given, answer: Factors, expected: Factors) -> bool:
    """Looks at contenders with one run each."""
    return not _has_one_run_each(given) or _all_close(answer, expected)


@promise("several runs are told by their median")
def _median_counts(given: Given, answer: Factors, expected: Factors) -> bool:
    return _all_close(answer, expected)


def _all_close(answer: Factors, expected: Factors) -> bool:
    return all(close(*pair) for a, b in zip(answer, expected, strict=True) for pair in zip(a, b, strict=True))


def _explain_chain(given: Given, expected: Factors) -> str:
    paces = [f"{each['steps']:,} × {median(each['seconds']) / each['steps']:.3g} s" for each in _ran(given)]
    return f"steps × seconds a step: {', '.join(paces)}"


SPLIT = Task(
    id="ex06.2",
    title="a speed-up taken apart",
    function="split",
    cases=_chains,
    smaller=_smaller_chains,
    expected=_expected_chain,
    read=_read_chain,
    properties=(
        _one_each,
        _fewer_steps,
        _quicker_steps,
        _multiply,
        _neighbors,
        _median_counts,
    ),
    explain=_explain_chain,
    hints=(
        "Time is steps × seconds a step. So a ratio of two times is a product of two ratios.",
        "Bring each contender to (steps, median of its seconds ÷ steps) first, and drop those without a run. Then "
        "look at neighbors.",
        "For neighbors (steps, pace) and (steps2, pace2): `(steps / steps2, pace / pace2)`. The median of an even "
        "number of runs is the mean of the middle two: `statistics.median` knows.",
    ),
)
