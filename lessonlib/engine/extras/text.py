"""An answer's text as it grows: token by token, whole characters alone, up to a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers.decoders import DecodeStream

from lessonlib.engine.frontend.params import SamplingParams


@dataclass
class AnswerText:
    """The text of an answer's tokens.

    Args:
        tokenizer: None where only ids are wanted; the text is empty then.
        params: the stop strings, and what is shown.
        prompt_ids: what comes before: a decoder may treat the first token of a text in another way.

    Attributes:
        text: without a stop string that was found, unless it is to be shown.
    """

    tokenizer: Any
    params: SamplingParams
    prompt_ids: Sequence[int]
    text: str = ""
    _num_read: int = 0  # tokens that `text` stands for
    _stream: DecodeStream | None = None

    def read(self, token_ids: Sequence[int]) -> None:
        """Take the tokens since the last call; `token_ids` are all of the answer's so far."""
        if self.tokenizer is None or not self.params.detokenize:
            return
        for token in token_ids[self._num_read :]:
            self.text += self._next(token)
        self._num_read = len(token_ids)

    def _next(self, token: int) -> str:
        """The characters that a token completes."""
        skips = self.params.skip_special_tokens
        if self._stream is None:
            self._stream = DecodeStream(ids=list(self.prompt_ids), skip_special_tokens=skips)
        try:
            return self._stream.step(self.tokenizer.backend_tokenizer, token) or ""
        except Exception:  # bytes that no text holds have come before: the stream begins anew
            self._stream = DecodeStream(skip_special_tokens=skips)
            return self._stream.step(self.tokenizer.backend_tokenizer, token) or ""

    def find_stop(self, token_ids: Sequence[int]) -> str | None:
        """The stop string that the last token completed, cut off the text; of several the one that ends first.

        Call it after each token. None within the first `min_tokens`.
        """
        before = len(self.text)
        self.read(token_ids)
        if len(token_ids) <= self.params.min_tokens:
            return None
        found = []
        for order, stop in enumerate(self.params.stop):
            start = self.text.find(stop, max(0, before + 1 - len(stop)))
            if start >= 0:
                found.append((start + len(stop), order, stop))
        if not found:
            return None
        end, _, stop = min(found)
        self.text = self.text[: end if self.params.include_stop_str_in_output else end - len(stop)]
        return stop

    def settled(self) -> str:
        """The text without an end that further tokens could make a stop string: what is shown stays."""
        if self.params.include_stop_str_in_output:
            return self.text
        longest = max((len(stop) for stop in self.params.stop), default=1) - 1
        for start in range(max(0, len(self.text) - longest), len(self.text)):
            if any(stop.startswith(self.text[start:]) for stop in self.params.stop):
                return self.text[:start]
        return self.text
