"""The log probabilities of a prompt's own tokens, in a pass of its own beside the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from lessonlib.engine.extras.logprobs import named_logprobs
from lessonlib.engine.inputs import StepInputs
from lessonlib.engine.model import Llama
from lessonlib.engine.outputs import Logprob
from lessonlib.engine.runner import ModelRunner
from lessonlib.engine.sampler import top_logprobs
from lessonlib.scheduling.plan import ScheduledRequest
from lessonlib.scheduling.request import RequestState

CHUNK = 256  # tokens whose logits are held at once


def prompt_logprobs(
    model: Llama, token_ids: Sequence[int], count: int | None, tokenizer: Any, block_size: int = 16
) -> list[dict[int, Logprob] | None] | None:
    """For each token of a prompt its log probability after those before it, and the `count` most probable tokens there.

    The steps of the ride compute logits where a token is to be chosen, so this is a second prefill, in K/V memory that
    is given back. The first token follows nothing: None. Without a count there is nothing to do.
    """
    if count is None:
        return None
    num_blocks = -(-len(token_ids) // block_size)
    runner = ModelRunner(
        model, 1 + num_blocks, block_size, 1, max_num_batched_tokens=CHUNK, max_model_len=len(token_ids)
    )
    request = RequestState("prompt", len(token_ids), 1, token_ids=list(token_ids), slot=0)
    blocks = list(range(1, 1 + num_blocks))
    found: list[dict[int, Logprob] | None] = [None]
    for start in range(0, len(token_ids) - 1, CHUNK):
        size = min(CHUNK, len(token_ids) - 1 - start)
        with torch.inference_mode():
            row = ScheduledRequest(request, 0, start, size, blocks, is_prefill=True, yields_token=True)
            inputs = runner.load(StepInputs.of([row], block_size))
            every = torch.arange(size, device=model.device)
            logits, _ = runner.forward(replace(inputs, sampled=every, slots=torch.zeros_like(every)))
            nexts = torch.tensor(token_ids[start + 1 : start + 1 + size], device=logits.device)
            rows = [part.cpu() for part in top_logprobs(logits, nexts, count)]
        for token, *scores in zip(nexts.tolist(), *rows, strict=True):
            found.append(named_logprobs(token, scores, count, tokenizer))
    return found
