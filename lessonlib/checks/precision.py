"""Tells an answer that lost digits from one that is wrong: rounded, in float32, or cut to a whole number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from lessonlib.checks.spec import close

DECIMALS = range(2, 8)  # that people round to
SINGLE = 1e-3  # how far an answer may be from the right one, as a share of it, to be taken for its float32


def lost_digits(answer: Any, expected: Any) -> str:
    """A sentence that says how the numbers of a wrong answer lost digits; "" where that does not explain it."""
    pairs = list(_pairs(answer, expected))
    if None in pairs:
        return ""
    wrong = [pair for pair in pairs if pair is not None and not _equal(*pair)]
    if not wrong:
        return ""
    found, right = wrong[0]
    if all(_is_rounded(*pair) for pair in wrong):
        return f"{found!r} is {right!r} rounded: leave the number as it is."
    # Tasks with arrays are given round numbers, and a wrong answer is often a whole one.
    if not _has_array(expected) and all(_is_cut(*pair) for pair in wrong):
        return (
            f"{found!r} is {right!r} without what is behind the point: is there a `//` where a `/` should be?"
        )
    if all(_is_single(*pair) for pair in wrong):
        return f"{found!r} has fewer digits than {right!r}: the numbers here are float64, and are to stay so."
    return ""


def _pairs(answer: Any, expected: Any) -> Iterator[tuple[float, float] | None]:
    """The floats of both, side by side; None where something else differs."""
    if isinstance(answer, np.ndarray) or isinstance(expected, np.ndarray):
        answer, expected = np.asarray(answer).tolist(), np.asarray(expected).tolist()
    if isinstance(answer, list | tuple) and isinstance(expected, list | tuple):
        if len(answer) != len(expected):
            yield None
            return
        for pair in zip(answer, expected, strict=True):
            yield from _pairs(*pair)
    elif isinstance(expected, float) and isinstance(answer, float | int):
        yield float(answer), expected
    elif answer != expected:
        yield None


def _has_array(expected: Any) -> bool:
    return isinstance(expected, np.ndarray) or (
        isinstance(expected, list | tuple) and any(map(_has_array, expected))
    )


def _equal(found: float, right: float) -> bool:
    return found == right or close(found, right) or (math.isnan(found) and math.isnan(right))


def _is_rounded(found: float, right: float) -> bool:
    return any(found == round(right, decimals) for decimals in DECIMALS) and math.isfinite(right)


def _is_cut(found: float, right: float) -> bool:
    return math.isfinite(right) and found == math.floor(right)


def _is_single(found: float, right: float) -> bool:
    return found == float(np.float32(found)) and math.isclose(found, right, rel_tol=SINGLE)
