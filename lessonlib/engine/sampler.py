"""From logits to tokens: greedy, or drawn from what temperature, top-k and top-p leave.

Every draw is a function of (seed, how many tokens the request has been given) alone. No generator keeps a
state, so neither batch neighbors nor a preemption can change what a request is told. What is drawn from them is in
`kernels.reference.sample` and, as one kernel, in `kernels.sampling`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kernels import reference
from lessonlib.engine.extras.logits import Edit, edited
from lessonlib.engine.frontend.params import SamplingParams

HOTTEST = 1e30  # all tokens are alike from here on; what float32 cannot hold would make NaN of -inf


@dataclass(frozen=True)
class Draw:
    """How one row is to be sampled: its parameters, its seed, how many tokens it was given before, and what is done to
    its logits first."""

    params: SamplingParams
    seed: int
    position: int
    edit: Edit | None = None


def engine_seed(seed: int, request: int) -> int:
    """The seed of the engine's request number `request` that brings none: 64 bits that hang together with no other."""
    digest = hashlib.blake2b(f"{seed} {request}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


def signed(seed: int) -> int:
    """A seed of 64 bits as int64 holds it."""
    return (seed + 2**63) % 2**64 - 2**63


class Columns(NamedTuple):
    """A step's draws, a column a parameter, on the device of the logits: what a sampling operator reads.

    Attributes:
        keys, top_k: int64 `[num_rows]`; see `kernels.sampling.sample`.
        temperature, top_p: float64 `[num_rows]`.
    """

    keys: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor


def columns(draws: Sequence[Draw], vocab_size: int, device: torch.device) -> tuple[Columns, bool]:
    """The draws as columns, and whether top-k or top-p cuts any row. One copy to the device, not waited for."""
    params = [draw.params for draw in draws]
    top_k = torch.tensor([each.top_k if 0 < each.top_k < vocab_size else vocab_size for each in params])
    top_p = torch.tensor([each.top_p for each in params], dtype=torch.float64)
    seeds = torch.tensor([draw.seed for draw in draws])
    keys = reference.draw_key(seeds, torch.tensor([draw.position for draw in draws]))
    temperature = torch.tensor([min(each.temperature, HOTTEST) for each in params], dtype=torch.float64)
    has_cuts = bool((top_k < vocab_size).any() or (top_p < 1).any())
    table = torch.stack((keys, temperature.view(torch.int64), top_k, top_p.view(torch.int64)))
    if device.type == "cuda":
        table = table.pin_memory().to(device, non_blocking=True)
    keys, warmth, top_k, share = table
    return Columns(keys, warmth.view(torch.float64), top_k, share.view(torch.float64)), has_cuts


def sample(
    logits: Tensor, draws: Sequence[Draw], operator: Callable[..., Tensor] = reference.sample
) -> Tensor:
    """A token for each row.

    Args:
        logits: `[num_rows, vocab_size]`, any float dtype.
        draws: one a row.
        operator: computes it; see `kernels.sampling.sample`.

    Returns:
        int64 `[num_rows]` on the device of the logits.
    """
    logits = edited(logits, [draw.edit for draw in draws])
    parameters, has_cuts = columns(draws, logits.shape[-1], logits.device)
    return operator(logits, *parameters, has_cuts=has_cuts)


def top_logprobs(logits: Tensor, tokens: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `SamplingParams.logprobs` asks for.

    Args:
        logits: `[num_rows, vocab_size]`; tokens: the chosen ones, `[num_rows]`; count: of the most probable.

    Returns:
        (log probability of the chosen `[num_rows]`, its rank `[num_rows]` counted from 1, log probabilities
        and ids of the most probable `[num_rows, count]`).
    """
    all_logprobs = logits.float().log_softmax(-1)
    chosen = all_logprobs.gather(-1, tokens[:, None])
    rank = (all_logprobs > chosen).sum(-1) + 1
    best = all_logprobs.topk(count, -1)
    return chosen[:, 0], rank, best.values, best.indices
