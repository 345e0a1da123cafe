"""What `lesson compare` is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lessonlib.contenders.presets import Preset, arrival_rate
from lessonlib.contenders.registry import DEFAULT_CONTENDERS, entry
from lessonlib.errors import CourseError
from lessonlib.result import Peak


@dataclass(frozen=True)
class Options:
    """What to compare.

    Attributes:
        preset: sizes; see `presets.PRESETS`.
        contenders, workloads: names.
        only: names of the rows to run; empty: all rows of the workloads.
        repeat: rounds; None: the preset's.
        runs: timed runs of a row in each turn; None: the preset's.
        rates, online_requests: of the online rows, a rate as `presets.arrival_rate` reads it; empty and None: the
            preset's.
        peak: requests a second that rates in percent are shares of; None: vLLM's is measured first.
        checks_identity: whether contenders first answer a few requests in float32, and must agree.
        traces_vllm: whether vLLM's scheduler is recorded, in a process of its own after the timed runs.
        model: a folder, a hub name, or "smollm2" on a CPU; None: the preset's.
        slots: of all rows but a split's; None: the preset's.
        threads: None: every core that this process may use.
        timeout: seconds that loading, or one run, may take.
        is_timed: False if only tokens and steps matter: then no contender compiles or warms up, waiting threads do not
            spin, vLLM's scheduler is recorded in the run itself, and seconds mean nothing.
        out: the file that is written after every run.
        command: as it was typed, for the record.
        seed: of the random draws.
        own: the folder of the student's files, for "mine".

    Raises:
        CourseError: for an unknown contender, one named twice, a count below 1, a rate that cannot be read, or rates
            without online rows.
    """

    preset: Preset
    contenders: Sequence[str] = DEFAULT_CONTENDERS
    workloads: Sequence[str] = ("mixed",)
    only: Sequence[str] = ()
    repeat: int | None = None
    runs: int | None = None
    rates: Sequence[str] = ()
    online_requests: int | None = None
    peak: Peak | None = None
    checks_identity: bool = True
    traces_vllm: bool = True
    model: str | None = None
    slots: int | None = None
    threads: int | None = None
    timeout: float = 600.0
    is_timed: bool = True
    out: Path | None = None
    command: str = "lesson compare"
    seed: int = 0
    own: str | Path = "exercises"

    def __post_init__(self) -> None:
        for name in self.contenders:
            entry(name)
        if len(set(self.contenders)) < len(self.contenders) or not self.contenders:
            raise CourseError(f"contenders {','.join(self.contenders)}: name each once")
        counts = {
            "repeat": self.repeat,
            "runs": self.runs,
            "requests": self.online_requests,
            "slots": self.slots,
            "threads": self.threads,
        }
        for name, count in counts.items():
            if count is not None and count < 1:
                raise CourseError(f"{name} {count}: give at least 1")
        for rate in self.rates:
            arrival_rate(rate, 1.0)
        if (self.rates or self.online_requests or self.peak) and "online" not in self.workloads:
            raise CourseError("rates, requests and peak are those of online rows: ask for --workload online")

    @property
    def rounds(self) -> int:
        """How often every contender has its turn."""
        return self.repeat or self.preset.repeat

    @property
    def runs_a_turn(self) -> int:
        """Timed runs of a row in each turn."""
        return self.runs or self.preset.runs


def contenders_for(preset: Preset, workloads: Sequence[str]) -> Sequence[str]:
    """The contenders by default: a split has its own chain."""
    return preset.split_chain if set(workloads) == {"split"} else DEFAULT_CONTENDERS
