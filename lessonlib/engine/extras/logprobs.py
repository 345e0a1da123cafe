"""Log probabilities by token, as answers and prompts report them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lessonlib.engine.outputs import Logprob


def named_logprobs(token: int, scores: Sequence[Tensor], count: int, tokenizer: Any) -> dict[int, Logprob]:
    """A row of `top_logprobs` by token id: the chosen token, then the `count` most probable."""
    chosen, rank, best, ids = scores
    found = {token: (float(chosen), int(rank))}
    others = zip(ids[:count].tolist(), best[:count].tolist(), range(1, count + 1), strict=True)
    found |= {other: (value, order) for other, value, order in others}
    return {
        other: Logprob(value, order, None if tokenizer is None else tokenizer.decode([other]))
        for other, (value, order) in found.items()
    }
