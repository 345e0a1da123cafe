"""The sampling kernel against its reference: the same draws, the exact distribution, and cuts with ties."""

import needs
import pytest
import torch

from kernels import reference
from kernels.sampling import sample

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
GREEDY, WHOLE = 0.0, 1.0


def random_logits(rows, vocabulary, dtype, device, seed=0):
    """Spread as a model's are; in 16 bits many are equal."""
    drawn = 3 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))
    return drawn.to(dtype).to(device)


def columns(rows, device, temperature=1.0, top_k=1 << 30, top_p=WHOLE, first=0):
    """One setting for all rows, or a list; keys that differ."""

    def column(value, dtype):
        return torch.tensor(value, dtype=dtype, device=device).expand(rows).contiguous()

    seeds = torch.arange(first, first + rows)
    keys = reference.draw_key(seeds, torch.full_like(seeds, 7)).to(device)
    tops = column(top_k, torch.int64), column(top_p, torch.float64)
    return keys, column(temperature, torch.float64), *tops


def kept(logits, settings):
    """The tokens of each row that the reference's cuts leave."""
    _, temperature, top_k, top_p = settings
    heated = logits.float() / temperature[:, None].float()
    return reference._keep_most_probable(heated, top_k[:, None], top_p[:, None].float()) > -torch.inf


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocabulary", [1, 50, 4096, 9001])
def test_the_same_draws_as_the_reference(tier, device, dtype, vocabulary):
    logits = random_logits(8, vocabulary, dtype, device)
    settings = columns(8, device, [1.0, 0.7, GREEDY, 2.0, 0.1, 1.0, GREEDY, 1.0])
    found = sample(logits, *settings, has_cuts=False)
    assert found.dtype is torch.int64
    assert found.equal(reference.sample(logits, *settings, has_cuts=False))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "cuts",
    [
        {"top_k": 1},
        {"top_k": 3},
        {"top_k": 40},
        {"top_p": 0.9},
        {"top_p": 0.02},
        {"top_p": 1e-9},
        {"top_k": 20, "top_p": 0.8},
        {"top_k": 4999, "top_p": 0.999},
    ],
    ids=str,
)
def test_what_is_cut_is_never_drawn_and_all_else_may_be(tier, device, dtype, cuts):
    """Many draws of one row, each with a key of its own: what was drawn is what the reference leaves."""
    rows = 3 if tier == "interpreter" else 4096
    logits = random_logits(1, 5000 if tier == "gpu" else 4200, dtype, device).expand(rows, -1)
    settings = columns(rows, device, 1.5, **cuts)
    found = sample(logits, *settings)
    left = kept(logits[:1], [column[:1] for column in settings])[0]
    assert left[found].all()
    few = int(left.sum())
    if few <= 3 and rows > 1000:
        assert set(found.tolist()) == set(left.nonzero()[:, 0].tolist())
    same = (found == reference.sample(logits, *settings)).float().mean()
    assert same > 0.999


def test_of_equals_at_the_edge_the_first_ones_stay(tier, device):
    logits = torch.tensor([[2.0, 1.0, 3.0, 1.0, 1.0, 1.0, -5.0]], dtype=torch.bfloat16, device=device)
    logits = logits.expand(16, -1)
    assert set(sample(logits, *columns(16, device, 2.0, top_k=4)).tolist()) == {0, 1, 2, 3}
    shares = logits[0].float().softmax(0).sort(descending=True).values.cumsum(0)
    assert shares[2] < 0.8 < shares[3]  # so two of the four equals are needed
    assert set(sample(logits, *columns(16, device, top_p=0.8)).tolist()) == {0, 1, 2, 3}


def test_cut_rows_and_whole_ones_and_greedy_ones_in_one_batch(tier, device):
    logits = random_logits(6, 3000, torch.bfloat16, device)
    tops = {"top_k": [5, 3000, 1, 3000, 7, 3000], "top_p": [1.0, 0.5, 1.0, 1.0, 0.6, 1.0]}
    settings = columns(6, device, [1.0, 0.8, 1.0, GREEDY, GREEDY, 1.2], **tops)
    assert sample(logits, *settings).equal(reference.sample(logits, *settings))


@pytest.mark.parametrize("cuts", [{}, {"top_k": 4}, {"top_p": 0.9}], ids=str)
def test_draws_follow_the_distribution(tier, device, cuts):
    """Chi-square over ten tokens; 99.99% of right samplers pass, and so does this one, whose keys are fixed."""
    if tier == "interpreter" and cuts:
        needs.TIERS["gpu"].skip()  # minutes in the interpreter; what is cut is tested above
    rows = 300 if tier == "interpreter" else 200_000
    logits = torch.linspace(-2, 1, 10, device=device)[None].expand(rows, -1)
    settings = columns(rows, device, 0.8, **cuts)
    left = kept(logits[:1], [column[:1] for column in settings])[0]
    expected = rows * (logits[0] / 0.8).masked_fill(~left, -torch.inf).softmax(0).double().cpu()
    counts = torch.bincount(sample(logits, *settings, has_cuts=bool(cuts)), minlength=10).double().cpu()
    there = expected > 0
    assert counts[~there].sum() == 0
    distance = ((counts - expected)[there] ** 2 / expected[there]).sum()
    assert distance < 33.7  # of 9 degrees of freedom, and of fewer all the more


@pytest.mark.gpu
def test_a_rare_token_is_as_rare_as_it_should_be(device):
    """Where u is next to 1 a card's own logarithm is too coarse: 100,000 tokens of 1e-6 each would win too often."""
    if device != "cuda":
        needs.TIERS["gpu"].skip()
    logits = torch.zeros(20_000, 100_001, dtype=torch.float32, device=device)
    logits[:, 0] = torch.log(torch.tensor(1e6 - 1e5))
    wins = (sample(logits, *columns(20_000, device), has_cuts=False) > 0).double().mean().item()
    assert wins == pytest.approx(0.1, abs=5 * (0.1 * 0.9 / 20_000) ** 0.5)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the interpreter
@pytest.mark.parametrize("value", [float("nan"), -float("inf"), float("inf")])
def test_whatever_the_logits_are_the_token_is_in_the_vocabulary(tier, device, value):
    logits = torch.full((2, 5000), value, device=device)
    tokens = sample(logits, *columns(2, device, [1.0, GREEDY], top_k=3, top_p=0.5))
    assert ((tokens >= 0) & (tokens < 5000)).all()


def test_a_wrong_column_is_named(tier, device):
    logits = random_logits(2, 10, torch.float32, device)
    keys, temperature, top_k, top_p = columns(2, device)
    with pytest.raises(ValueError, match=r"top_k is int32, expected int64"):
        sample(logits, keys, temperature, top_k.int(), top_p)
    with pytest.raises(ValueError, match=r"keys has shape \[1\], expected \[2\]"):
        sample(logits, keys[:1], temperature, top_k, top_p)
