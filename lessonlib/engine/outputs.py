"""What goes in beside a prompt and what comes out, with vLLM's names."""

from __future__ import annotations

from dataclasses import dataclass

from lessonlib.errors import CourseError


@dataclass(frozen=True)
class SamplingParams:
    """How to choose tokens and when to stop. This engine is greedy: temperature is 0.

    Attributes:
        max_tokens: most output tokens, at least 1.
        temperature: 0 (greedy).
        ignore_eos: go on to `max_tokens` whatever the model says.
    """

    max_tokens: int = 16
    temperature: float = 0.0
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise CourseError(f"max_tokens {self.max_tokens}: ask for at least 1 token")
        if self.temperature != 0:
            raise CourseError(f"temperature {self.temperature}: this engine is greedy, use 0")


@dataclass(frozen=True)
class CompletionOutput:
    """One answer. `finish_reason` is "stop" (the model ended it; its end token is the last id) or "length"."""

    index: int
    text: str
    token_ids: list[int]
    finish_reason: str


@dataclass(frozen=True)
class RequestOutput:
    """A prompt and its answers (always one here)."""

    request_id: str
    prompt: str
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool = True
