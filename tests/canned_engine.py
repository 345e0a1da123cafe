"""An engine with the real scheduler and no model: everyone says the same words, as many as its params say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lessonlib.errors import CourseError
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.trace import Trace

WORDS = ("the", "car", "goes", "up", "and", "the", "doors", "let", "one", "more", "in", "<b>now</b>", "🛗")


@dataclass
class Answer:
    text: str
    finish_reason: str | None = None


@dataclass
class Output:
    request_id: str
    prompt: str
    outputs: list[Answer]
    finished: bool = False


class CannedEngine:
    """`params` is how many words a rider gets. `broken` is raised by the next step."""

    def __init__(self, slots: int = 2, **kwargs: int) -> None:
        self.scheduler = Scheduler(slots, **kwargs)
        self.outputs: dict[str, Output] = {}
        self.broken: Exception | None = None

    @property
    def trace(self) -> Trace:
        return self.scheduler.build_trace()

    def add_request(self, request_id: str, prompt: str, params: int | None = None) -> None:
        if len(prompt) > 400:
            raise CourseError(f"the prompt has {len(prompt)} characters: at most 400 fit")
        self.scheduler.add_request(request_id, len(prompt.split()), params or 6)
        self.outputs[request_id] = Output(request_id, prompt, [Answer("")])

    def step(self) -> Sequence[Output]:
        if self.broken:
            error, self.broken = self.broken, None
            raise error
        plan = self.scheduler.schedule()
        done = {request.id for request in self.scheduler.update(plan, dict.fromkeys(plan.sampled_ids, 0))}
        for name in plan.sampled_ids:
            output, said = self.outputs[name], self.outputs[name].outputs[0].text.split()
            text = " ".join([*said, WORDS[len(said) % len(WORDS)]])
            output.outputs = [Answer(text, "length" if name in done else None)]
            output.finished = name in done
        return [self.outputs[name] for name in plan.sampled_ids]

    def abort(self, request_id: str) -> None:
        self.scheduler.abort(request_id)

    def has_unfinished_requests(self) -> bool:
        return self.scheduler.has_unfinished
