"""Layer 1 against the reference figures, against brute force and against itself."""

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessonlib import utilization as u
from lessonlib.errors import CourseError

TWENTY = [687, 527, 433, 252, 280, 80, 106, 62, 181, 659, 537, 734, 427, 504, 778, 597, 524, 457, 469, 751]
lengths_and_slots = st.tuples(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 12))


def test_twenty_riders():
    assert sum(TWENTY) == 9_045
    assert u.static_steps(TWENTY, 8) == 2_216
    assert u.continuous_steps(TWENTY, 8) == 1_490


@given(lengths_and_slots)
def test_continuous_is_within_grahams_bounds_and_never_above_one(case):
    lengths, slots = case
    fewest, most = u.continuous_steps_bounds(lengths, slots)
    assert fewest <= u.continuous_steps(lengths, slots) <= most
    assert 0 < u.continuous_utilization(lengths, slots) <= 1


@given(lengths_and_slots)
def test_continuous_needs_no_more_steps_than_static(case):
    lengths, slots = case
    assert u.continuous_steps(lengths, slots) <= u.static_steps(lengths, slots)


@pytest.mark.parametrize(("low", "high", "slots"), [(1, 1, 3), (1, 4, 3), (3, 7, 2), (2, 5, 4)])
def test_expected_maximum_is_exact(low, high, slots):
    draws = list(product(range(low, high + 1), repeat=slots))
    exact = Fraction(sum(map(max, draws)), len(draws))
    assert u.expected_uniform_maximum(low, high, slots) == pytest.approx(float(exact), rel=1e-12)


def test_uniform_figures():
    assert u.expected_static_utilization(50, 800, 8) == pytest.approx(0.593, abs=5e-4)
    assert u.expected_static_utilization_from_zero(8) == pytest.approx(0.5625)
    # The whole-number form tends to the continuous one as the range grows.
    assert u.expected_static_utilization(1, 100_000, 8) == pytest.approx(0.5625, abs=1e-4)


def test_monte_carlo_agrees_and_a_wrong_claim_does_not():
    estimate = u.monte_carlo_static_utilization(lambda rng: rng.randint(50, 800), 8, batches=4_000)
    assert estimate.agrees_with(u.expected_static_utilization(50, 800, 8))
    assert not estimate.agrees_with(0.5)


def test_dollars():
    full = u.dollars_per_million_tokens(30_000, 5_000, 1.0)
    assert full == pytest.approx(30_000 / (5_000 * 30 * 86_400 / 1e6))
    assert u.dollars_per_million_tokens(30_000, 5_000, 0.5) == pytest.approx(2 * full)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: u.static_steps([3], 0), "0 slots"),
        (lambda: u.static_steps([], 8), "no lengths"),
        (lambda: u.continuous_steps([3, -2], 8), "length -2 at place 1"),
        (lambda: u.expected_uniform_maximum(9, 3, 2), "from 9 to 3"),
        (lambda: u.dollars_per_million_tokens(30_000, 0, 0.5), "rate 0"),
        (lambda: u.monte_carlo_static_utilization(lambda rng: 1, 2, batches=1), "1 batches"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(CourseError, match=words):
        call()
