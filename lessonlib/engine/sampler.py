"""From logits to tokens: greedy, or drawn from what temperature, top-k and top-p leave.

Every draw is a function of (seed, how many tokens the request has been given) alone. No generator keeps a
state, so neither batch neighbors nor a preemption can change what a request is told. (Counter-based random
numbers: Salmon et al., SC 2011; the mixing function is SplitMix64: Steele et al., OOPSLA 2014.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lessonlib.engine.frontend.params import SamplingParams

GOLDEN, MIX_1, MIX_2 = (
    value - (1 << 64) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


@dataclass(frozen=True)
class Draw:
    """How one row is to be sampled: its parameters, its seed, and how many tokens it was given before."""

    params: SamplingParams
    seed: int
    position: int


def engine_seed(seed: int, request: int) -> int:
    """The seed of the engine's request number `request` that brings none: 64 bits that hang together with no other."""
    digest = hashlib.blake2b(f"{seed} {request}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


def signed(seed: int) -> int:
    """A seed of 64 bits as int64 holds it."""
    return (seed + 2**63) % 2**64 - 2**63


def sample(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """A token for each row.

    Args:
        logits: `[num_rows, vocab_size]`, any float dtype.
        draws: one a row.

    Returns:
        int64 `[num_rows]` on the device of the logits.
    """
    tokens = logits.argmax(-1)
    drawn = [place for place, draw in enumerate(draws) if not draw.params.is_greedy]
    if drawn:
        rows = torch.tensor(drawn, device=logits.device)
        tokens[rows] = _draw(logits[rows].float(), [draws[place] for place in drawn])
    return tokens


def _draw(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Exponential race: the token whose exponential clock, at the rate of its probability, rings first."""

    def column(values: list) -> Tensor:
        return torch.tensor(values, device=logits.device)[:, None]

    logits = logits / column([draw.params.temperature for draw in draws])
    params = [draw.params for draw in draws]
    if any(each.top_k > 0 or each.top_p < 1 for each in params):
        size = logits.shape[-1]
        top_k = column([each.top_k if 0 < each.top_k < size else size for each in params])
        logits = _keep_likeliest(logits, top_k, column([each.top_p for each in params]))
    noise = uniform(
        column([draw.seed for draw in draws]), column([draw.position for draw in draws]), logits.shape[-1]
    )
    return (logits.log_softmax(-1) - (-noise.log()).log()).argmax(-1)


def _keep_likeliest(logits: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Logits with -inf for all but the `top_k` likeliest, and of those the fewest that hold `top_p`."""
    ordered, order = logits.sort(-1, descending=True)
    ranks = torch.arange(logits.shape[-1], device=logits.device)
    ordered = ordered.masked_fill(ranks >= top_k, -torch.inf)
    shares = ordered.softmax(-1)
    before = shares.cumsum(-1) - shares
    # Without a cut nothing goes: rounding could put the sum before the last tokens at 1. The first always stays: in
    # float32 the smallest shares are 0.
    ordered = ordered.masked_fill((before >= top_p) & (top_p < 1) & (ranks > 0), -torch.inf)
    return logits.scatter(-1, order, ordered)


def uniform(seed: Tensor, position: Tensor, count: int) -> Tensor:
    """Numbers strictly between 0 and 1, float32 `[num_rows, count]`, from int64 `[num_rows, 1]` keys."""
    places = torch.arange(count, device=seed.device)
    key = _mix(_mix(seed) + position * GOLDEN)
    bits = _mix(key + places * GOLDEN)
    return ((bits >> 41 & (1 << 23) - 1).float() + 0.5) * 2.0**-23


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finalizer on int64, which wraps as uint64 does; `>>` keeps the sign, so it is masked off."""
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * MIX_1
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * MIX_2
    return x ^ (x >> 31 & (1 << 33) - 1)


def top_logprobs(logits: Tensor, tokens: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `SamplingParams.logprobs` asks for.

    Args:
        logits: `[num_rows, vocab_size]`; tokens: the chosen ones, `[num_rows]`; count: likeliest tokens.

    Returns:
        (log probability of the chosen `[num_rows]`, its rank `[num_rows]` counted from 1, log probabilities
        and ids of the likeliest `[num_rows, count]`).
    """
    all_logprobs = logits.float().log_softmax(-1)
    chosen = all_logprobs.gather(-1, tokens[:, None])
    rank = (all_logprobs > chosen).sum(-1) + 1
    best = all_logprobs.topk(count, -1)
    return chosen[:, 0], rank, best.values, best.indices
