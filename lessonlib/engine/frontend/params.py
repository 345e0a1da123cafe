"""How to choose tokens and when to stop, with vLLM's names, order and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from lessonlib.engine.frontend.checks import (
    STRICT,
    Number,
    SomeText,
    Whole,
    YesOrNo,
    checked_class,
    is_one_of,
    listed,
    plain,
    show,
)
from lessonlib.errors import CourseError

GREEDY_BELOW = 1e-5  # temperatures below it are 0, as in vLLM
MAX_LOGPROBS = 20  # as many as vLLM gives
MOST_SAMPLES = 16_384  # as many as vLLM draws
# Together with a small temperature they leave every logit finite in float32.
LARGEST_BIAS, LARGEST_PENALTY = 1e20, 1e10

Penalty = Annotated[Number, Field(ge=-2, le=2), "give -2 to 2; 0 changes nothing"]
Bias = Annotated[Number, Field(ge=-LARGEST_BIAS, le=LARGEST_BIAS)]
Logprobs = Annotated[
    Annotated[Whole, Field(ge=0, le=MAX_LOGPROBS)] | None, f"give 0 to {MAX_LOGPROBS}, or None"
]


def _seed(value: object) -> object:
    value = plain(value)
    return None if value == -1 else value  # -1: no seed, as in vLLM


def _by_token(value: Any) -> Any:
    return {plain(token): bias for token, bias in value.items()} if isinstance(value, Mapping) else value


def _ids_or_none(value: Any) -> Any:
    return None if value is None else listed(value)


def _only(*values: Any) -> AfterValidator:
    """Accepts these values and no other."""

    def check(value: Any) -> Any:
        if not is_one_of(value, values):
            raise ValueError
        return value

    return AfterValidator(check)


def _no(feature: str) -> str:
    """The remedy where a parameter of vLLM's asks for what is not here."""
    return f"leave it out, this engine has no {feature} (docs/vllm.md)"


@checked_class
@dataclass(config=ConfigDict(**STRICT, validate_assignment=True))
class SamplingParams:
    """How to choose tokens and when to stop.

    Attributes:
        n: answers to each prompt, of draws that are independent of each other. They share the prompt's K/V.
        presence_penalty, frequency_penalty: taken off the logit of each token that the answer has already, once, and
            once for each time.
        repetition_penalty: what logits of tokens in prompt and answer are divided by, multiplied where negative.
        temperature: 0 takes the most probable token (greedy); else logits are divided by it.
        top_p: choose among the fewest tokens that hold this share of the probability.
        top_k: choose among the k most probable tokens; 0 or -1: among all.
        min_p: choose among tokens of at least this share of the most probable one's probability.
        seed: makes the draws repeatable, whatever runs beside; None or -1: drawn from the engine's seed.
        stop: texts that end the answer, and are cut off it; one or several.
        stop_token_ids: tokens that end it, beside the model's own end token.
        ignore_eos: go on past the model's own end token.
        max_tokens: most output tokens; None: up to the end of the context.
        min_tokens: output tokens before which no end token is chosen and no stop string is seen.
        logprobs: report the log probabilities of the k most probable tokens beside that of the chosen one, before
            temperature, cuts and penalties; None: none.
        prompt_logprobs: the same for the tokens of the prompt.
        detokenize: False: give no text.
        skip_special_tokens: leave special tokens out of the text.
        include_stop_str_in_output: do not cut off what ended the answer.
        logit_bias: what is added to a token's logit, by token id.
        allowed_token_ids: the only tokens to choose from; None: all.
        bad_words: texts that may not come: their last token is not chosen after the others.

    The other parameters are vLLM's, at values that change nothing here. Values are checked here, where one is assigned,
    and again when a request comes in. Raises `CourseError` that names the first value out of range.
    """

    n: Annotated[
        Whole, Field(ge=1, le=MOST_SAMPLES), f"give a whole number from 1 to {MOST_SAMPLES:,}, others by name"
    ] = 1
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    repetition_penalty: Annotated[
        Number, Field(ge=1 / LARGEST_PENALTY, le=LARGEST_PENALTY), "give 1e-10 to 1e10; 1 changes nothing"
    ] = 1.0
    temperature: Annotated[Number, Field(ge=0), "give 0 (greedy) or more"] = 1.0
    watermarking: Annotated[Any, _only(None, False), _no("watermarks")] = None
    top_p: Annotated[Number, Field(gt=0, le=1), "give more than 0 and at most 1"] = 1.0
    top_k: Annotated[Whole, Field(ge=-1), "give at least 1, or 0 for all tokens"] = 0
    min_p: Annotated[Number, Field(ge=0, le=1), "give 0 to 1; 0 changes nothing"] = 0.0
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
    ignore_eos: YesOrNo = False
    max_tokens: Annotated[
        Annotated[Whole, Field(ge=1)] | None, "ask for at least 1 token, or None for the rest of the context"
    ] = 16
    min_tokens: Annotated[Whole, Field(ge=0), "give 0 or more"] = 0
    logprobs: Logprobs = None
    prompt_logprobs: Logprobs = None
    prompt_logprob_token_ids: Annotated[Any, _only(None), _no("scores of chosen tokens")] = None
    prompt_logprob_start: Annotated[Any, _only(None), _no("scores of chosen tokens")] = None
    logprob_token_ids: Annotated[Any, _only(None), _no("scores of chosen tokens")] = None
    flat_logprobs: Annotated[Any, _only(False), _no("flat lists of log probabilities")] = False
    detokenize: YesOrNo = True
    skip_special_tokens: YesOrNo = True
    spaces_between_special_tokens: Annotated[Any, _only(True), _no("other spaces")] = True
    include_stop_str_in_output: YesOrNo = False
    output_kind: Annotated[Any, _only(None), _no("other outputs than the answer as it stands")] = None
    stream_interval: Annotated[Any, _only(None, 1), _no("server that streams")] = None
    skip_clone: YesOrNo = False
    structured_outputs: Annotated[Any, _only(None), _no("grammar for its answers")] = None
    logit_bias: Annotated[
        dict[Whole, Bias] | None,
        BeforeValidator(_by_token),
        "give a dictionary by token id, of numbers from -1e20 to 1e20",
    ] = None
    allowed_token_ids: Annotated[
        Annotated[list[Whole], Field(min_length=1)] | None,
        BeforeValidator(_ids_or_none),
        "give a list of token ids, or None for all",
    ] = None
    extra_args: Annotated[Any, _only(None, {}), _no("plug-ins")] = None
    bad_words: Annotated[
        list[SomeText], BeforeValidator(listed), "give one text or several, none of them empty"
    ] = Field(default_factory=list)
    skip_reading_prefix_cache: Annotated[Any, _only(None, False), _no("way round its prefix cache")] = None
    thinking_token_budget: Annotated[Any, _only(None), _no("budget for thinking")] = None
    repetition_detection: Annotated[Any, _only(None), _no("detection of repeats")] = None
    trace_decode_token_ids: Annotated[Any, _only(None), _no("replay of given tokens")] = None

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise CourseError(
                f"min_tokens {self.min_tokens}: give at most max_tokens, which is {self.max_tokens}"
            )
        if self.n > 1 and self.is_greedy:
            raise CourseError(f"n {self.n}: answers at temperature 0 are all the same, give more or n=1")
        if self.stop and not self.detokenize:
            raise CourseError(f"stop {show(self.stop)}: give detokenize=True, it is looked for in the text")

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    def clone(self) -> SamplingParams:
        """The same parameters, checked again: a list in them may have been changed."""
        return replace(self)
