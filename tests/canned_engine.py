"""An engine with the real scheduler and no model: everyone says the same words, as many as its params say."""

from __future__ import annotations

from collections.abc import Sequence

from lessonlib.errors import CourseError
from lessonlib.simulation.rehearsal import Output, Rehearsal

WORDS = ("the", "car", "goes", "up", "and", "the", "doors", "let", "one", "more", "in", "<b>now</b>", "🛗")


class CannedEngine(Rehearsal):
    """`params` is how many words a rider gets. `broken` is raised by the next step."""

    def __init__(self, slots: int = 2, **kwargs: int) -> None:
        super().__init__("continuous", slots, **kwargs)
        self.broken: Exception | None = None

    def word(self, place: int) -> str:
        return WORDS[place % len(WORDS)]

    def add_request(self, request_id: str, prompt: str, params: int | None = None) -> None:
        if len(prompt) > 400:
            raise CourseError(f"the prompt has {len(prompt)} characters: at most 400 fit")
        super().add_request(request_id, prompt, params or 6)

    def step(self) -> Sequence[Output]:
        if self.broken:
            error, self.broken = self.broken, None
            raise error
        return super().step()
