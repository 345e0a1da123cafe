"""A scheduler with the interface of an engine and no model: every answer is the numbers 1, 2, 3, one a step.

It has `add_request`, `step`, `abort`, `trace` and `has_unfinished_requests`, so that a live picture can show any
policy with any memory, and be rebuilt between two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lessonlib.scheduling.block_pool import BlockPool
from lessonlib.scheduling.kv_cache import KVCache
from lessonlib.scheduling.policies import make_policy
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.trace import Trace

DEFAULT_MAX_TOKENS = 24


@dataclass
class Answer:
    """The text of an answer so far, and why it ended; None while it goes on."""

    text: str
    finish_reason: str | None = None


@dataclass
class Output:
    """A request as `step` reports it."""

    request_id: str
    prompt: str
    outputs: list[Answer]
    finished: bool = False


class Rehearsal:
    """Runs a `Scheduler`, taking each word of a prompt for a token.

    Args:
        policy: a name of `POLICIES`.
        slots, num_blocks, block_size, token_budget: as in `Scheduler`.
        pool: makes the block pool if `num_blocks` is not 0; with a broken one, requests read each other's blocks.

    Raises:
        CourseError: for an unknown policy, and for sizes with which no request could run.
    """

    def __init__(
        self,
        policy: str = "vllm",
        slots: int = 4,
        num_blocks: int = 0,
        block_size: int = 8,
        token_budget: int | None = None,
        pool: Callable[[int, int], BlockPool] = BlockPool,
    ) -> None:
        self.scheduler = Scheduler(
            slots,
            token_budget=token_budget,
            policy=make_policy(policy),
            kv_cache=KVCache(pool(num_blocks, block_size)) if num_blocks else None,
            maker="rehearsal",
        )
        self.outputs: dict[str, Output] = {}

    @property
    def trace(self) -> Trace:
        return self.scheduler.build_trace()

    def word(self, index: int) -> str:
        """The text of an answer's token number `index`, from 0."""
        return str(index + 1)

    def add_request(self, request_id: str, prompt: str, params: int | None = None) -> None:
        """Put a prompt in the queue for `params` tokens (24 by default). Raises `CourseError` as the scheduler does."""
        self.scheduler.add_request(request_id, len(prompt.split()), params or DEFAULT_MAX_TOKENS)
        self.outputs[request_id] = Output(request_id, prompt, [Answer("")])

    def step(self) -> Sequence[Output]:
        """One step; an output for each request that got a token."""
        plan = self.scheduler.schedule()
        rows = plan.sampled_rows
        done = {request.id for request in self.scheduler.update(plan, {row.id: 0 for row in rows})}
        for row in rows:
            output = self.outputs[row.id]
            word = self.word(row.request.num_output_tokens - 1)
            text = " ".join(filter(None, (output.outputs[0].text, word)))
            output.outputs = [Answer(text, "length" if row.id in done else None)]
            output.finished = row.id in done
        return [self.outputs[row.id] for row in rows]

    def abort(self, request_id: str) -> None:
        """Remove a request. Raises `CourseError` for an id that is not here."""
        self.scheduler.abort(request_id)

    def has_unfinished_requests(self) -> bool:
        return self.scheduler.has_unfinished
