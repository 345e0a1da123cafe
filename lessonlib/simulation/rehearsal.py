"""The scheduler as an engine without a model: whoever boards is answered with numbers, one a step.

It has the names of an engine (`add_request`, `step`, `abort`, `trace`, `has_unfinished_requests`), so that a live
elevator can ride any policy with any memory, and be rebuilt between two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lessonlib.scheduling.block_pool import BlockPool
from lessonlib.scheduling.kv_cache import KVCache
from lessonlib.scheduling.policies import make_policy
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.trace import Trace

TOKENS = 24  # that a rider gets where nobody says how many


@dataclass
class Answer:
    """What a rider has been told so far, and why it ended; None while it goes on."""

    text: str
    finish_reason: str | None = None


@dataclass
class Output:
    """A request as an engine reports it."""

    request_id: str
    prompt: str
    outputs: list[Answer]
    finished: bool = False


class Rehearsal:
    """Rides a `Scheduler`; a prompt has a token a word.

    Args:
        policy: a name of `POLICIES`.
        slots, num_blocks, block_size, token_budget: as in `Scheduler`.
        pool: makes the block pool, where there are blocks; a broken one lets riders overhear each other.

    Raises:
        CourseError: for an unknown policy, and for sizes that nothing could run with.
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

    def word(self, place: int) -> str:
        """What a rider is told as its token number `place`, from 0."""
        return str(place + 1)

    def add_request(self, request_id: str, prompt: str, params: int | None = None) -> None:
        """Put a prompt in the queue for `params` tokens. Raises `CourseError` as the scheduler does."""
        self.scheduler.add_request(request_id, len(prompt.split()), params or TOKENS)
        self.outputs[request_id] = Output(request_id, prompt, [Answer("")])

    def step(self) -> Sequence[Output]:
        """One step; an output for each request that got a token."""
        plan = self.scheduler.schedule()
        told = plan.sampled_rows
        done = {request.id for request in self.scheduler.update(plan, {row.id: 0 for row in told})}
        for row in told:
            output = self.outputs[row.id]
            place = row.request.num_output_tokens - 1
            text = " ".join(filter(None, (output.outputs[0].text, self.word(place))))
            output.outputs = [Answer(text, "length" if row.id in done else None)]
            output.finished = row.id in done
        return [self.outputs[row.id] for row in told]

    def abort(self, request_id: str) -> None:
        """Drop a request. Raises `CourseError` for one that is not here."""
        self.scheduler.abort(request_id)

    def has_unfinished_requests(self) -> bool:
        return self.scheduler.has_unfinished
