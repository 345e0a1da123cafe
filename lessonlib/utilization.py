"""Layer 1: how full the elevator rides, in plain Python.

Lengths are counted in steps: a request of length n gives one token in each of n steps. All requests wait at
the start. Everything here is exact, or says that it is an estimate and how sure it is.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

from lessonlib.errors import CourseError

SECONDS_PER_MONTH = 30 * 24 * 3600
MOST_SLOTS = 1_000_000  # beyond this a typing error is likelier than a server


def check_slots(slots: int) -> int:
    """`slots` itself, or a `CourseError` where nobody could board."""
    if slots < 1:
        raise CourseError(f"{slots} slots: the elevator needs at least 1")
    if slots > MOST_SLOTS:
        raise CourseError(f"{slots:,} slots: give at most {MOST_SLOTS:,}")
    return slots


def check_lengths(lengths: Sequence[int]) -> Sequence[int]:
    """`lengths` itself, or a `CourseError` where it is empty or holds a length below 1."""
    if not len(lengths):
        raise CourseError("no lengths: give at least one request")
    for place, length in enumerate(lengths):
        if length < 1:
            raise CourseError(f"length {length} at place {place}: a request asks for at least 1 token")
    return lengths


# ----- exact, for a list of lengths -----


def static_steps(lengths: Sequence[int], slots: int) -> int:
    """Steps of static batching: the next `slots` requests board when the last of a batch has left."""
    check_lengths(lengths)
    check_slots(slots)
    return sum(max(lengths[first : first + slots]) for first in range(0, len(lengths), slots))


def continuous_steps(lengths: Sequence[int], slots: int) -> int:
    """Steps of continuous batching: a freed slot is refilled, in order, for the very next step.

    This is list scheduling (Graham, 1966): each request goes to the slot that is free first.
    """
    check_lengths(lengths)
    free_at = [0] * check_slots(slots)
    for length in lengths:
        heapq.heapreplace(free_at, free_at[0] + length)
    return max(free_at)


def utilization(lengths: Sequence[int], slots: int, steps: int) -> float:
    """Tokens given ÷ (slots × steps). Never above 1, because the steps are counted and not divided."""
    return sum(lengths) / (slots * steps)


def static_utilization(lengths: Sequence[int], slots: int) -> float:
    """Exact utilization of static batching."""
    return utilization(lengths, slots, static_steps(lengths, slots))


def continuous_utilization(lengths: Sequence[int], slots: int) -> float:
    """Exact utilization of continuous batching, the drain at the end included."""
    return utilization(lengths, slots, continuous_steps(lengths, slots))


def continuous_steps_bounds(lengths: Sequence[int], slots: int) -> tuple[int, int]:
    """Fewest and most steps that continuous batching can need for these lengths in any order.

    Below: the work must fit and the longest must finish. Above: when the last request boards, every slot has
    been busy until then (Graham's bound).
    """
    check_lengths(lengths)
    check_slots(slots)
    total, longest = sum(lengths), max(lengths)
    fewest = max(-(-total // slots), longest)
    most = (total + (slots - 1) * longest) // slots
    return fewest, most


# ----- expected, for uniform lengths -----


def expected_uniform_maximum(low: int, high: int, slots: int) -> float:
    """Expected longest of `slots` whole lengths drawn evenly from low … high, exactly.

    Sums P(max > k): the chance that not all of them are at most k.
    """
    if not 1 <= low <= high:
        raise CourseError(f"uniform lengths from {low} to {high}: need 1 <= low <= high")
    check_slots(slots)
    choices = high - low + 1
    return low + sum(1.0 - ((k - low + 1) / choices) ** slots for k in range(low, high))


def expected_static_utilization(low: int, high: int, slots: int) -> float:
    """Long-run utilization of static batching for uniform lengths: mean ÷ expected maximum.

    The ratio of the expectations is what a long run tends to; the mean of the batches' own ratios is another
    number.
    """
    return (low + high) / 2 / expected_uniform_maximum(low, high, slots)


def expected_static_utilization_from_zero(slots: int) -> float:
    """The same for lengths spread evenly over [0, L], whatever L: (B + 1) ÷ 2B."""
    return (check_slots(slots) + 1) / (2 * slots)


@dataclass(frozen=True)
class Estimate:
    """A Monte Carlo estimate: the value and its standard error."""

    value: float
    standard_error: float

    def agrees_with(self, expected: float, sigmas: float = 4.0) -> bool:
        """Whether `expected` lies within so many standard errors."""
        return abs(self.value - expected) <= sigmas * self.standard_error


def monte_carlo_static_utilization(
    draw: Callable[[random.Random], int], slots: int, batches: int = 20_000, seed: int = 0
) -> Estimate:
    """Utilization of static batching over many random batches, with its standard error.

    `draw(rng)` gives one length. The value is total work ÷ total slot-steps; its error is the delta method's
    for a ratio.
    """
    check_slots(slots)
    if batches < 2:
        raise CourseError(f"{batches} batches: an estimate with an error needs at least 2")
    rng = random.Random(seed)
    work, cost = [], []
    for _ in range(batches):
        lengths = [draw(rng) for _ in range(slots)]
        work.append(sum(lengths))
        cost.append(slots * max(lengths))
    value = fmean(work) / fmean(cost)
    residuals = [done - value * paid for done, paid in zip(work, cost, strict=True)]
    return Estimate(value, stdev(residuals) / sqrt(batches) / fmean(cost))


# ----- money -----


def dollars_per_million_tokens(dollars_per_month: float, full_rate: float, utilization: float) -> float:
    """What a million output tokens cost on a card that gives `full_rate` tok/s when every slot is busy."""
    if full_rate <= 0 or not 0 < utilization <= 1:
        raise CourseError(
            f"rate {full_rate} tok/s at utilization {utilization}: need a rate above 0 and 0 < utilization <= 1"
        )
    return dollars_per_month / (full_rate * utilization * SECONDS_PER_MONTH) * 1e6
