"""A request's answer at its start: what ends it, what is done to its logits, and how many of them there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lessonlib.engine.answers import Answer
from lessonlib.engine.checkpoint import LlamaConfig
from lessonlib.engine.extras.logits import LogitRules, tokens_of_bad_words
from lessonlib.engine.frontend.params import SamplingParams
from lessonlib.engine.frontend.requests import sample_name
from lessonlib.engine.sampler import engine_seed, signed
from lessonlib.scheduling.request import RequestState
from lessonlib.scheduling.scheduler import Scheduler


def seeds_of(params: SamplingParams, engine: int, request: int) -> list[int]:
    """A seed for each of a request's `n` answers: counted on from its own, or from the engine's for its number."""
    if params.seed is None:
        return [engine_seed(engine, request + index) for index in range(params.n)]
    return [signed(params.seed + index) for index in range(params.n)]


def first_answer(
    state: RequestState,
    prompt: str | None,
    params: SamplingParams,
    seeds: Sequence[int],
    config: LlamaConfig,
    tokenizer: Any,
) -> Answer:
    """The answer of a request that comes.

    As in vLLM, of several end tokens of a model the tokenizer's own ends an answer without a stop reason, and the
    others count as stop tokens.
    """
    own = getattr(tokenizer, "eos_token_id", None)
    ends = frozenset(config.eos_token_ids)
    eos = ends & {own} or ends
    stops = {*params.stop_token_ids, *(() if params.ignore_eos else ends - eos)}
    rules = LogitRules(
        params,
        (state.token_ids or [])[: state.prompt_tokens],
        {*ends, *params.stop_token_ids},
        tokens_of_bad_words(params.bad_words, tokenizer),
    )
    return Answer(
        state,
        prompt,
        params,
        seeds[0],
        stops,
        frozenset() if params.ignore_eos else eos,
        tokenizer,
        None if rules.change_nothing else rules,
        seeds=seeds,
    )


def board_others(first: Answer, scheduler: Scheduler, answers: dict[str, Answer], now: float) -> None:
    """Board the other answers to a prompt that is computed: they share its blocks.

    Args:
        first: the answer that is under way.
        answers: all that are, by name; the others are put there.
        now: when they come, in the Trace's clock.

    Safe to call again where a step was cut short.
    """
    for index in range(len(first.samples), first.params.n):
        name = sample_name(first.id, index)
        if name not in answers:
            answers[name] = Answer(
                scheduler.fork(first.id, name, arrival_time=now),
                first.prompt,
                first.params,
                first.seeds[index],
                first.stop_ids,
                first.eos_ids,
                first.tokenizer,
                first.rules,
                index,
                first.samples,
            )
        first.samples[index] = answers[name]
