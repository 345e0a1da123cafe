"""What a contender is told: a model, an engine's limits, and rows of work. Plain data, to travel as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lessonlib.errors import CourseError

BLOCK_SIZE = 16  # tokens


@dataclass(frozen=True)
class Row:
    """One piece of work that every contender gets: token ids in, as many tokens out as `max_tokens` says.

    Attributes:
        name: what tables and plots call it.
        prompts: token ids, one list a request.
        max_tokens: output tokens of each request; the end-of-sequence token does not end an answer.
        arrivals: seconds from the start, ascending; empty where all wait at the start.
        kind: "mixed", "fixed", "sweep", "split", "online" or "trace": which plot it belongs to.
        batch: requests that a static batch holds; 0: as many as there are slots, or fit in memory.
    """

    name: str
    prompts: list[list[int]]
    max_tokens: list[int]
    arrivals: list[float] = field(default_factory=list)
    kind: str = "mixed"
    batch: int = 0

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
        return sum(self.max_tokens)

    @property
    def arrival_times(self) -> list[float]:
        """Seconds from the start, one a request."""
        return self.arrivals or [0.0] * len(self)

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt and answer together."""
        return max(len(ids) + most for ids, most in zip(self.prompts, self.max_tokens, strict=True))


@dataclass(frozen=True)
class Job:
    """All that a contender's process needs before it can run rows.

    Attributes:
        model: a folder with config.json (and weights, unless `load_format` is "dummy": random ones).
        dtype: "float32", "bfloat16" or "float16".
        device: "cpu" or "cuda".
        slots: requests on board at once.
        paged_slots: the same for engines that take memory block by block, where it is another number; 0: `slots`.
        num_blocks: K/V blocks of `BLOCK_SIZE` tokens that every paged engine has; 0: see the next two.
        max_model_len: longest prompt and answer together, in tokens.
        threads, cores: of the CPU's computation; cores are the ids that the process is bound to.
        kv_gib: GiB of K/V cache on a CPU.
        gpu_memory_utilization: share of the card that an engine with paged memory may take.
        own: the student's file and the functions of it that ride along, for the contender "mine".
        is_timed: how long it takes matters, so an engine may spend time on compiling itself first.
        is_traced: the engine's scheduler is recorded, step by step. Not for runs whose time is taken.
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
    load_format: str = "auto"
    paged_slots: int = 0
    num_blocks: int = 0
    own: tuple[str, list[str]] | None = None

    def save(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Job:
        """Read what `save` wrote."""
        data: dict[str, Any] = json.loads(Path(path).read_text())
        return cls(**{**data, "rows": [Row(**row) for row in data["rows"]]})

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)


class OutOfMemory(Exception):  # noqa: N818 - a point on the plot, not a fault
    """The work did not fit into memory; the process can go on with other work."""


@dataclass(frozen=True)
class Ride:
    """What one run of a row gave.

    Attributes:
        seconds: wall clock from the call to the last token on the host.
        tokens: the output token ids of each request.
        raw_tokens: tokens that were computed: those beyond a request's end in a static batch too.
        token_times: for each request when each of its tokens was there, seconds from the start; empty where
            looking would have disturbed the run.
        settings: what the run was done with, beyond the contender's own settings.
        trace: a `Trace` as a dictionary, where the contender has one.
    """

    seconds: float
    tokens: list[list[int]]
    raw_tokens: int
    token_times: list[list[float]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    trace: dict[str, Any] | None = None
