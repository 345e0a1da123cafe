"""Rows of several turns: each request's next prompt is the conversation so far and what is asked next."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from lessonlib.contenders.job import Measurement, Row


def run_conversations(
    row: Row,
    llm: Any,
    params: Sequence[Any],
) -> Measurement:
    """Answer all requests of a turn together, then put the next turn, from an empty prefix cache.

    Args:
        llm: the course's `LLM` or vLLM's.
        params: its `SamplingParams`, one for each request.
    """
    llm.reset_prefix_cache()
    conversations = [list(ids) for ids in row.prompts]
    answers: list[list[int]] = [[] for _ in conversations]
    read = cached = 0
    started = time.perf_counter()
    for turn in range(row.turns):
        if turn:
            for conversation, asked in zip(conversations, row.follow_ups[turn - 1], strict=True):
                conversation += asked
        prompts = [{"prompt_token_ids": ids} for ids in conversations]
        outputs = llm.generate(prompts, params, use_tqdm=False)
        for conversation, answer, output in zip(conversations, answers, outputs, strict=True):
            read += len(conversation)
            cached += output.num_cached_tokens or 0
            conversation += output.outputs[0].token_ids
            answer += output.outputs[0].token_ids
    seconds = time.perf_counter() - started
    settings = {"prompt_tokens_cached": round(cached / read, 4)}
    return Measurement(seconds, answers, sum(map(len, answers)), settings=settings)
