"""How to choose tokens and when to stop, with vLLM's names, order and defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from lessonlib.engine.frontend.checks import (
    STRICT,
    Flag,
    Number,
    SomeText,
    Whole,
    checked_class,
    listed,
    plain,
    show,
)
from lessonlib.errors import CourseError

GREEDY_BELOW = 1e-5  # temperatures below it are 0, as in vLLM
MAX_LOGPROBS = 20  # as many as vLLM gives


def _seed(value: object) -> object:
    value = plain(value)
    return None if value == -1 and value is not True else value  # -1: no seed, as in vLLM


@checked_class
@dataclass(config=ConfigDict(**STRICT, validate_assignment=True))
class SamplingParams:
    """How to choose tokens and when to stop.

    Attributes:
        temperature: 0 takes the most probable token (greedy); else logits are divided by it.
        top_p: choose among the fewest tokens that hold this share of the probability.
        top_k: choose among the k most probable tokens; 0 or -1: among all.
        seed: makes the draws repeatable, whatever runs beside; None or -1: drawn from the engine's seed.
        stop: texts that end the answer, and are cut off it; one or several.
        stop_token_ids: tokens that end it, beside the model's own end token.
        ignore_eos: go on past the model's own end token.
        max_tokens: most output tokens; None: up to the end of the context.
        logprobs: report the log probabilities of the k most probable tokens beside that of the chosen one, before
            temperature and cuts; None: none.

    Values are checked here, where one is assigned, and again when a request comes in. Raises `CourseError` that names
    the first value out of range.
    """

    temperature: Annotated[Number, Field(ge=0), "give 0 (greedy) or more"] = 1.0
    top_p: Annotated[Number, Field(gt=0, le=1), "give more than 0 and at most 1"] = 1.0
    top_k: Annotated[Whole, Field(ge=-1), "give at least 1, or 0 for all tokens"] = 0
    seed: Annotated[
        Whole | None, BeforeValidator(_seed), "give a whole number from -2**63 to 2**64 - 1, or None"
    ] = None
    stop: Annotated[
        list[SomeText],
        BeforeValidator(listed),
        "give one text or several; an empty stop string would end every answer",
    ] = Field(default_factory=list)
    stop_token_ids: Annotated[list[Whole], BeforeValidator(listed), "give a list of token ids"] = Field(
        default_factory=list
    )
    ignore_eos: Annotated[Flag, "give True or False"] = False
    max_tokens: Annotated[
        Annotated[Whole, Field(ge=1)] | None, "ask for at least 1 token, or None for the rest of the context"
    ] = 16
    logprobs: Annotated[
        Annotated[Whole, Field(ge=0, le=MAX_LOGPROBS)] | None, f"give 0 to {MAX_LOGPROBS}, or None"
    ] = None

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    def clone(self) -> SamplingParams:
        """The same parameters, checked again: a list in them may have been changed."""
        return replace(self)


def one_each(params: Any, count: int) -> list[SamplingParams]:
    """Parameters for `count` prompts, from none, one or a list. Raises `CourseError` for anything else."""
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * count
    params = list(params) if isinstance(params, Sequence) else [params]
    for each in params:
        if not isinstance(each, SamplingParams):
            raise CourseError(f"sampling_params {show(each)}: give a SamplingParams, or a list of them")
    if len(params) != count:
        raise CourseError(f"{len(params)} sampling params for {count} prompts: give one, or one each")
    return params
