"""An engine that is spoken to: each prompt is a question, put into the model's chat template."""

from __future__ import annotations

from lessonlib.engine.frontend.params import SamplingParams
from lessonlib.engine.llm import LLM
from lessonlib.engine.outputs import RequestOutput
from lessonlib.trace import Trace


class ChatEngine:
    """`LLM`, step by step, for questions as they are typed; the live elevator drives it.

    Args:
        llm: the engine, with no request running.
        params: how to answer where a question brings no parameters of its own.
    """

    def __init__(self, llm: LLM, params: SamplingParams) -> None:
        self.llm, self.params = llm, params
        llm.start_trace()

    def add_request(self, request_id: str, prompt: str, params: SamplingParams | None = None) -> None:
        """Put a question in the queue. Raises `CourseError` as `LLM.add_request` does."""
        question = self.llm.chat_prompt([{"role": "user", "content": prompt}])
        self.llm.add_request(request_id, question, params or self.params)

    def step(self) -> list[RequestOutput]:
        """Compute a step; the answers it brought forward."""
        return self.llm.step()

    def abort(self, request_id: str) -> None:
        """Take a rider off board. Raises `CourseError` for one that is not here."""
        self.llm.abort(request_id)

    def has_unfinished_requests(self) -> bool:
        return self.llm.has_unfinished_requests()

    @property
    def trace(self) -> Trace:
        return self.llm.trace
