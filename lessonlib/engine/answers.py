"""A request's answer as it grows: tokens, text, when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tokenizers.decoders import DecodeStream
from torch import Tensor

from lessonlib.engine.frontend.params import SamplingParams
from lessonlib.engine.outputs import CompletionOutput, Logprob, RequestOutput
from lessonlib.engine.sampler import Draw
from lessonlib.scheduling.request import RequestState


@dataclass
class Answer:
    """What a request has been told.

    Args:
        state: the scheduler's view of it.
        prompt: its text, where there is one.
        params, seed: how it is sampled.
        stop_ids, eos_ids: tokens that end it; both are kept in `token_ids`.
        tokenizer: None where only ids are wanted.
    """

    state: RequestState
    prompt: str | None
    params: SamplingParams
    seed: int
    stop_ids: set[int]
    eos_ids: frozenset[int]
    tokenizer: Any
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    cumulative_logprob: float = 0.0
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    _stream: DecodeStream | None = None
    _text: str = ""
    _decoded: int = 0  # tokens that `_text` stands for

    @property
    def id(self) -> str:
        return self.state.id

    @property
    def is_finished(self) -> bool:
        return self.finish_reason is not None

    def draw(self, position: int) -> Draw:
        """How output token number `position` is to be sampled."""
        return Draw(self.params, self.seed, position)

    def add(self, token: int, logprobs: tuple[Tensor, ...] | None, place: int) -> None:
        """Take the next token; `place` is its row in the step's `logprobs`."""
        self.token_ids.append(token)
        if logprobs is not None and self.params.logprobs is not None:
            self._add_logprobs(token, logprobs, place, self.params.logprobs)
        if token in self.eos_ids:
            self.finish_reason = "stop"
        elif token in self.stop_ids:
            self.finish_reason, self.stop_reason = "stop", token
        elif self.params.stop and (found := self._found_stop()):
            self.finish_reason, self.stop_reason = "stop", found
        elif len(self.token_ids) >= self.state.max_tokens:
            self.finish_reason = "length"

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
        self._stream, self._text, self._decoded = None, "", 0

    def text(self) -> str:
        """The answer's text so far. Bytes of a character that is not whole yet are held back."""
        if self.tokenizer is None:
            return ""
        if self._stream is None:
            self._stream = DecodeStream(skip_special_tokens=True)
        backend = self.tokenizer.backend_tokenizer
        spoken = len(self.token_ids) - isinstance(
            self.stop_reason, int
        )  # a stop token is no part of the text
        for token in self.token_ids[self._decoded : spoken]:
            self._text += self._stream.step(backend, token) or ""
        self._decoded = spoken
        if isinstance(self.stop_reason, str):
            return self._text[: self._text.index(self.stop_reason)]
        return self._text

    def _found_stop(self) -> str | None:
        """The stop string that the text now holds; of several the one that begins first."""
        text = self.text()
        places = [(text.index(stop), stop) for stop in self.params.stop if stop in text]
        return min(places)[1] if places else None

    def _add_logprobs(self, token: int, logprobs: tuple[Tensor, ...], place: int, count: int) -> None:
        chosen, rank, best, ids = (part[place] for part in logprobs)
        found = {
            int(other): Logprob(float(value), order, self._word(int(other)))
            for order, (other, value) in enumerate(zip(ids[:count], best[:count], strict=True), 1)
        }
        found.setdefault(token, Logprob(float(chosen), int(rank), self._word(token)))
        self.logprobs.append(found)
        self.cumulative_logprob += float(chosen)

    def _word(self, token: int) -> str | None:
        return None if self.tokenizer is None else self.tokenizer.decode([token])

    def output(self) -> RequestOutput:
        """The answer as it stands, in vLLM's shape."""
        wants = self.params.logprobs is not None
        completion = CompletionOutput(
            index=0,
            text=self.text(),
            token_ids=list(self.token_ids),
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            cumulative_logprob=self.cumulative_logprob if wants else None,
            logprobs=list(self.logprobs) if wants else None,
        )
        known = self.state.token_ids or []
        return RequestOutput(
            request_id=self.id,
            prompt=self.prompt,
            prompt_token_ids=known[: self.state.prompt_tokens],
            outputs=[completion],
            finished=self.is_finished,
            num_cached_tokens=self.state.num_cached_tokens,
        )
