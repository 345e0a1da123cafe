"""What a request asks to be done to its logits before a token is chosen: forbidden tokens, bias, penalties, min-p.

Rows of plain PyTorch beside the fast path. The order is vLLM's, since it matters: what is forbidden first, then bias,
then penalties; min-p last, on what temperature makes of the rest. Top-k and top-p cut what remains. Penalties are
those of Keskar et al. 2019 (repetition) and of OpenAI's API (presence, frequency); min-p is Nguyen et al. 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lessonlib.engine.frontend.params import SamplingParams

Edit = Callable[[Tensor], None]
"""Changes a row of logits, float32 `[vocab_size]`, in place."""


@dataclass(frozen=True)
class LogitRules:
    """What one request asks of its logits.

    Args:
        params: its parameters.
        prompt_ids: tokens of its prompt, for the repetition penalty.
        end_ids: tokens that end an answer; they wait for `min_tokens`.
        bad_words: token ids of each text that may not come.
    """

    params: SamplingParams
    prompt_ids: Sequence[int]
    end_ids: Collection[int]
    bad_words: Sequence[Sequence[int]]

    @property
    def has_penalties(self) -> bool:
        params = self.params
        return bool(params.presence_penalty or params.frequency_penalty or params.repetition_penalty != 1)

    @property
    def needs_history(self) -> bool:
        """Whether every token given so far must be known before the next one is chosen."""
        return self.has_penalties or any(len(word) > 1 for word in self.bad_words)

    @property
    def change_nothing(self) -> bool:
        params = self.params
        has_min_p = params.min_p > 0 and not params.is_greedy
        asks = (params.allowed_token_ids, self.bad_words, params.min_tokens, params.logit_bias)
        return not (any(asks) or self.has_penalties or has_min_p)

    def apply(self, row: Tensor, output_ids: Sequence[int], position: int) -> None:
        """Change a row of logits in place.

        Args:
            row: float32 `[vocab_size]`.
            output_ids: the tokens given so far; all of them where `needs_history` says so.
            position: how many were given so far.
        """
        before = row.clone()
        if self.params.allowed_token_ids:
            row.fill_(-torch.inf)
            row[self.params.allowed_token_ids] = before[self.params.allowed_token_ids]
        forbidden = [word[-1] for word in self.bad_words if _ends_with(output_ids, word[:-1])]
        if position < self.params.min_tokens:
            forbidden += self.end_ids
        if forbidden:
            row[forbidden] = -torch.inf
        if self.params.logit_bias:
            bias = torch.tensor(list(self.params.logit_bias.values()), device=row.device)
            row[list(self.params.logit_bias)] += bias
        if self.has_penalties:
            self._penalize(row, output_ids)
        if self.params.min_p > 0 and not self.params.is_greedy:
            lowest = row.max() + self.params.temperature * math.log(self.params.min_p)
            row.masked_fill_(row < lowest, -torch.inf)
        # Where nothing is left, there is nothing to choose from: the row as it was.
        row.copy_(torch.where(row.isneginf().all(), before, row))

    def _penalize(self, row: Tensor, output_ids: Sequence[int]) -> None:
        params = self.params
        if params.repetition_penalty != 1:
            seen = sorted({*self.prompt_ids, *output_ids})
            found = row[seen]
            factor = params.repetition_penalty
            row[seen] = torch.where(found > 0, found / factor, found * factor)
        if output_ids:
            ids, counts = torch.tensor(output_ids, device=row.device).unique(return_counts=True)
            row[ids] -= params.frequency_penalty * counts + params.presence_penalty


def _ends_with(ids: Sequence[int], end: Sequence[int]) -> bool:
    return not end or list(ids[-len(end) :]) == list(end)


def edited(logits: Tensor, edits: Sequence[Edit | None]) -> Tensor:
    """`logits` `[num_rows, vocab_size]` with the rows changed that have an edit; itself where none has."""
    if not any(edits):
        return logits
    logits = logits.to(torch.float32, copy=True)
    for row, edit in zip(logits, edits, strict=True):
        if edit is not None:
            edit(row)
    return logits


def tokens_of_bad_words(words: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """Token ids of each text, and of the text after a space, where that is as many tokens and begins otherwise."""
    found = []
    for word in words:
        bare, spaced = (
            tokenizer.encode(text, add_special_tokens=False) for text in (word.lstrip(), f" {word.lstrip()}")
        )
        found.append(bare)
        if len(spaced) == len(bare) and spaced[:1] != bare[:1]:
            found.append(spaced)
    return found
