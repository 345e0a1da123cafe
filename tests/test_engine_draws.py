"""Tokens come as often as temperature, top-k, top-p and min-p say: every combination of them, by chi-square."""

from itertools import product

import numpy as np
import pytest
import torch

from lessonlib.engine import SamplingParams
from lessonlib.engine.extras.logits import LogitRules
from lessonlib.engine.sampler import Draw, sample

LOGITS = [2.0, 1.7, 1.1, 0.9, 0.4, 0.0, -0.3, -1.2, -2.0, -3.1]
DRAWS = 3_000
# Chi-square with up to 9 degrees of freedom is above this once in a million times.
UNLIKELY = 48.0


def due_shares(temperature, top_k, top_p, min_p):
    """Probability of each token, plainly, in float64: min-p first, then top-k, then top-p of what is left."""
    shares = np.exp(np.array(LOGITS) / temperature)
    shares /= shares.sum()
    shares[shares < min_p * shares.max()] = 0
    if top_k:
        shares[top_k:] = 0  # the logits descend
    shares /= shares.sum()
    before = np.cumsum(shares) - shares
    shares[before >= top_p] = 0
    return shares / shares.sum()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    list(product((0.5, 1.0, 1.8), (0, 4), (1.0, 0.75), (0.0, 0.2))),
)
def test_draws_follow_the_shares(temperature, top_k, top_p, min_p):
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    rules = LogitRules(params, (), (), ())
    edit = None if rules.change_nothing else lambda row: rules.apply(row, (), 0)
    assert (edit is None) == (min_p == 0)
    draws = [Draw(params, seed, seed % 7, edit) for seed in range(DRAWS)]
    tokens = sample(torch.tensor([LOGITS]).expand(DRAWS, -1), draws)
    counts = np.bincount(tokens.numpy(), minlength=len(LOGITS))
    due = DRAWS * due_shares(temperature, top_k, top_p, min_p)
    assert not counts[due == 0].any()
    kept = due > 0
    assert ((counts[kept] - due[kept]) ** 2 / due[kept]).sum() < UNLIKELY


def test_the_test_would_see_another_share():
    """Draws at temperature 1 are not taken for those at 1.3."""
    params = SamplingParams(temperature=1.0)
    tokens = sample(
        torch.tensor([LOGITS]).expand(DRAWS, -1), [Draw(params, seed, 0) for seed in range(DRAWS)]
    )
    counts = np.bincount(tokens.numpy(), minlength=len(LOGITS))
    due = DRAWS * due_shares(1.3, 0, 1.0, 0.0)
    assert ((counts - due) ** 2 / due).sum() > UNLIKELY
