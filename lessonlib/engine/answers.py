"""A request's answer as it grows: tokens, text, when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from lessonlib.engine.extras.logits import LogitRules
from lessonlib.engine.extras.logprobs import named_logprobs
from lessonlib.engine.extras.text import AnswerText
from lessonlib.engine.frontend.params import SamplingParams
from lessonlib.engine.outputs import CompletionOutput, Logprob, RequestOutput
from lessonlib.engine.sampler import Draw
from lessonlib.scheduling.request import RequestState


@dataclass(repr=False)
class Answer:
    """What a request has been told.

    Args:
        state: the scheduler's view of it.
        prompt: its text, where there is one.
        params, seed: how it is sampled.
        stop_ids, eos_ids: tokens that end it; both are kept in `token_ids`.
        tokenizer: None where only ids are wanted.
        rules: what is done to its logits; None: nothing.
        index: which answer to the prompt it is.
        samples: those that are under way, this one included, by index.
        seeds: of all of them.
    """

    state: RequestState
    prompt: str | None
    params: SamplingParams
    seed: int
    stop_ids: set[int]
    eos_ids: frozenset[int]
    tokenizer: Any
    rules: LogitRules | None = None
    index: int = 0
    samples: dict[int, Answer] = field(default_factory=dict)
    seeds: Sequence[int] = ()
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    cumulative_logprob: float = 0.0
    num_cached_tokens: int = 0
    finish_reason: str | None = None
    stop_reason: int | str | None = None

    def __post_init__(self) -> None:
        self.prompt_ids = (self.state.token_ids or [])[: self.state.prompt_tokens]
        self._text = AnswerText(self.tokenizer, self.params, self.prompt_ids)
        if self.index == 0:
            self.samples[0] = self

    @property
    def id(self) -> str:
        return self.state.id

    @property
    def is_finished(self) -> bool:
        return self.finish_reason is not None

    @property
    def needs_history(self) -> bool:
        """Whether all its tokens must be known before the next one is chosen."""
        return self.rules is not None and self.rules.needs_history

    def draw(self, position: int) -> Draw:
        """How output token number `position` is to be sampled."""
        if self.rules is None:
            return Draw(self.params, self.seed, position)
        edit = partial(self.rules.apply, output_ids=self.token_ids, position=position)
        return Draw(self.params, self.seed, position, edit)

    def add(self, token: int, logprobs: tuple[Tensor, ...] | None, index: int) -> None:
        """Take the next token; `index` is its row in the step's `logprobs`."""
        self.token_ids.append(token)
        if logprobs is not None and self.params.logprobs is not None:
            scores = [part[index] for part in logprobs]
            self.logprobs.append(named_logprobs(token, scores, self.params.logprobs, self.tokenizer))
            self.cumulative_logprob += self.logprobs[-1][token].logprob
        if token in self.eos_ids:
            self.finish_reason = "stop"
        elif token in self.stop_ids:
            self.finish_reason, self.stop_reason = "stop", token
        elif len(self.token_ids) >= self.state.max_tokens:
            self.finish_reason = "length"
        shows_token = self.finish_reason != "stop" or self.params.include_stop_str_in_output
        if self.params.stop and shows_token and (found := self._text.find_stop(self.token_ids)):
            self.finish_reason, self.stop_reason = "stop", found

    def abort(self) -> None:
        """The request left before its answer ended."""
        self.finish_reason = "abort"

    def roll_back(self, num_tokens: int) -> None:
        """As it was after its first `num_tokens` tokens, before it ended."""
        del self.token_ids[num_tokens:], self.logprobs[num_tokens:]
        self.cumulative_logprob = sum(
            found[token].logprob for found, token in zip(self.logprobs, self.token_ids, strict=False)
        )
        self.finish_reason = self.stop_reason = None
        self._text = AnswerText(self.tokenizer, self.params, self.prompt_ids)

    def text(self) -> str:
        """The answer's text so far. What could still become another character or a stop string is held back."""
        ended_by_token = self.finish_reason == "stop" and not isinstance(self.stop_reason, str)
        hides_end = ended_by_token and not self.params.include_stop_str_in_output
        self._text.read(self.token_ids[:-1] if hides_end else self.token_ids)
        return self._text.text if self.is_finished else self._text.settled()

    def output(self) -> RequestOutput:
        """The answers to the prompt as they stand, in vLLM's shape."""
        samples = [self.samples[index] for index in sorted(self.samples)]
        return RequestOutput(
            request_id=samples[0].id,
            prompt=self.prompt,
            prompt_token_ids=self.prompt_ids,
            outputs=[each.completion() for each in samples],
            finished=len(samples) == self.params.n and all(each.is_finished for each in samples),
            num_cached_tokens=samples[0].num_cached_tokens,
            prompt_logprobs=samples[0].prompt_logprobs,
        )

    def completion(self) -> CompletionOutput:
        """This one answer, in vLLM's shape."""
        wants = self.params.logprobs is not None
        return CompletionOutput(
            index=self.index,
            text=self.text(),
            token_ids=list(self.token_ids),
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            cumulative_logprob=self.cumulative_logprob if wants else None,
            logprobs=list(self.logprobs) if wants else None,
        )
