"""What a contender's process gets, and what it gives back: a job of rows, and a measurement of each run.

Plain data, sent as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lessonlib.errors import CourseError

BLOCK_SIZE = 16  # tokens


@dataclass(frozen=True)
class Row:
    """One piece of work, the same for every contender: prompts as token ids, and output tokens to compute.

    Attributes:
        name: in tables and plots.
        prompts: token ids, one list for each request.
        max_tokens: output tokens of each request; the end-of-sequence token does not end an answer.
        arrivals: seconds from the start, ascending; empty if all requests wait at the start.
        kind: "mixed", "fixed", "sweep", "split", "sampled", "online", "trace" or "conversations": its plot.
        batch: requests in a static batch; 0: as many as there are slots, or fit in memory.
        sampling: fields of `SamplingParams` beside `max_tokens`, the same for each request; empty: greedy.
        follow_ups: of conversations: for each further turn, the token ids that each request's prompt gets after the
            answer so far. Empty for requests that are answered once.

    Raises:
        CourseError: for lists of different lengths, or no prompts.
    """

    name: str
    prompts: list[list[int]]
    max_tokens: list[int]
    arrivals: list[float] = field(default_factory=list)
    kind: str = "mixed"
    batch: int = 0
    sampling: dict[str, Any] = field(default_factory=dict)
    follow_ups: list[list[list[int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.prompts or len(self.prompts) != len(self.max_tokens):
            raise CourseError(
                f"row {self.name!r}: {len(self.prompts)} prompts, {len(self.max_tokens)} max_tokens"
            )
        if self.arrivals and len(self.arrivals) != len(self.prompts):
            raise CourseError(
                f"row {self.name!r}: {len(self.arrivals)} arrivals, {len(self.prompts)} prompts"
            )

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def useful_tokens(self) -> int:
        return sum(self.max_tokens) * self.turns

    @property
    def turns(self) -> int:
        """Answers that each request asks for."""
        return 1 + len(self.follow_ups)

    @property
    def arrival_times(self) -> list[float]:
        """Seconds from the start, for each request."""
        return self.arrivals or [0.0] * len(self)

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt and answer together, over all turns."""
        return max(prompt + answer for prompt, answer in self.lengths())

    def lengths(self) -> Iterator[tuple[int, int]]:
        """Tokens of the prompt and of the answer, for each answer; a later turn's prompt holds the earlier ones."""
        for *asked, count in zip(self.prompts, *self.follow_ups, self.max_tokens, strict=True):
            prompt = 0
            for ids in asked:
                prompt += len(ids)
                yield prompt, count
                prompt += count


@dataclass(frozen=True)
class Job:
    """All that a contender's process needs to load its model and to run rows.

    Attributes:
        model: a folder with config.json and weights.
        dtype: "float32", "bfloat16" or "float16".
        device: "cpu" or "cuda".
        slots: requests that may run at once.
        paged_slots: the same for engines that take K/V memory block by block; 0: `slots`.
        num_blocks: K/V blocks of `BLOCK_SIZE` tokens that every paged engine has; 0: by `kv_gib` on a CPU, and by
            `gpu_memory_utilization` on a card.
        max_model_len: longest prompt and answer together, in tokens.
        threads, cores: of the CPU's computation; cores are the ids that the process is bound to.
        kv_gib: GiB of K/V cache on a CPU.
        gpu_memory_utilization: share of the card's memory that a paged engine may take.
        prefix_caching: whether engines that can keep the K/V of earlier prompts do so.
        own: a student's file and the names of the functions to take from it, for the contender "mine".
        is_timed: whether seconds count, so that an engine may compile itself first.
        is_traced: whether vLLM's scheduler is recorded step by step. Not for timed runs.
    """

    model: str
    dtype: str
    device: str
    slots: int
    max_model_len: int
    threads: int
    cores: Sequence[int]
    rows: Sequence[Row]
    kv_gib: int = 2
    gpu_memory_utilization: float = 0.88
    is_timed: bool = True
    is_traced: bool = False
    paged_slots: int = 0
    num_blocks: int = 0
    prefix_caching: bool = False
    own: tuple[str, list[str]] | None = None

    def save(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Job:
        """Read a file of `save`."""
        data: dict[str, Any] = json.loads(Path(path).read_text())
        return cls(**{**data, "rows": [Row(**row) for row in data["rows"]]})

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)


class OutOfMemory(Exception):  # noqa: N818 - a point on the plot, not a fault
    """The work did not fit in memory. The process can go on with other work."""


@dataclass(frozen=True)
class Measurement:
    """One run of a row.

    Attributes:
        seconds: wall clock from the call to the last token on the host.
        tokens: the output token ids of each request.
        raw_tokens: output tokens that were computed, those beyond a request's end in a static batch included.
        token_times: for each request the seconds from the start to each of its tokens; empty if taking them would
            have disturbed the run.
        settings: of this run, beside the engine's own.
        trace: a `Trace` as a dictionary, if the contender has one.
    """

    seconds: float
    tokens: list[list[int]]
    raw_tokens: int
    token_times: list[list[float]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    trace: dict[str, Any] | None = None
