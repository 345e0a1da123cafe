"""What comes out, with vLLM's names and shapes."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Logprob:
    """A token's log probability, its rank (1: the most probable) and its text."""

    logprob: float
    rank: int
    decoded_token: str | None = None


@dataclass(frozen=True)
class CompletionOutput:
    """An answer as far as it goes.

    Attributes:
        index: which of a request's answers it is.
        text: without stop string and special tokens, and while it goes on without what could become a stop string.
        token_ids: an end token included.
        cumulative_logprob, logprobs: where they were asked for; a dictionary by token id for each token.
        finish_reason: "stop" (an end token or stop string), "length", "abort", or None while it goes on.
        stop_reason: the stop string or id of `stop_token_ids` that ended it.
    """

    index: int
    text: str
    token_ids: list[int]
    finish_reason: str | None
    stop_reason: int | str | None = None
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] | None = None


@dataclass(frozen=True)
class RequestOutput:
    """A prompt and its answers, one or `SamplingParams.n`.

    Attributes:
        num_cached_tokens: tokens of the prompt that the prefix cache held when the request first boarded.
        prompt_logprobs: where they were asked for: None for the first token, then a dictionary for each.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput] = field(default_factory=list)
    finished: bool = True
    num_cached_tokens: int = 0
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
