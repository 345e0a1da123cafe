"""What goes in beside a prompt and what comes out, with vLLM's names, shapes and defaults."""

from __future__ import annotations

from dataclasses import dataclass, field

from lessonlib.errors import CourseError

MAX_LOGPROBS = 20  # as many as vLLM gives


@dataclass(frozen=True)
class SamplingParams:
    """How to choose tokens and when to stop.

    Attributes:
        max_tokens: most output tokens, at least 1.
        temperature: 0 takes the likeliest token (greedy); else logits are divided by it.
        top_k: choose among the k likeliest tokens; 0 or -1: among all.
        top_p: choose among the fewest tokens that hold this share of the probability, in (0, 1].
        seed: makes the draws repeatable, whoever rides beside; None: drawn from the engine's seed.
        stop: text that ends the answer (and is cut off it); one string or several.
        stop_token_ids: tokens that end the answer, beside the model's own end token.
        ignore_eos: go on whatever the model says.
        logprobs: report the log probabilities of the k likeliest tokens beside that of the chosen one, before
            temperature and cuts; None: none.

    Raises `CourseError` that names the first value out of range.
    """

    max_tokens: int = 16
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    logprobs: int | None = None

    def __post_init__(self) -> None:
        checks = (
            (self.max_tokens >= 1, f"max_tokens {self.max_tokens}: ask for at least 1 token"),
            (self.temperature >= 0, f"temperature {self.temperature}: give 0 (greedy) or more"),
            (self.top_k >= -1, f"top_k {self.top_k}: give at least 1, or 0 for all tokens"),
            (0 < self.top_p <= 1, f"top_p {self.top_p}: give more than 0 and at most 1"),
            (
                self.logprobs is None or 0 <= self.logprobs <= MAX_LOGPROBS,
                f"logprobs {self.logprobs}: give 0 to {MAX_LOGPROBS}",
            ),
            (
                "" not in self.stop_strings,
                "stop '': an empty stop string would end every answer, leave it out",
            ),
        )
        for holds, words in checks:
            if not holds:
                raise CourseError(words)

    @property
    def stop_strings(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0


@dataclass(frozen=True)
class Logprob:
    """A token's log probability, its rank (1: the likeliest) and its text."""

    logprob: float
    rank: int
    decoded_token: str | None = None


@dataclass(frozen=True)
class CompletionOutput:
    """An answer as far as it goes.

    Attributes:
        text: without stop string and special tokens.
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
    """A prompt and its answers (always one here).

    `num_cached_tokens`: tokens of the prompt that the prefix cache held when the request boarded.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput] = field(default_factory=list)
    finished: bool = True
    num_cached_tokens: int = 0
