"""Who wants to ride: requests, their lengths, their arrivals, and files of real ones.

A `Workload` keeps its requests in columns, so that a million of them are four arrays; `Request` is one row,
for people and for schedulers that look at one request at a time.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from lessonlib.errors import CourseError

TRACE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
AZURE_QUANTILES = "azure_llm_2023_conv_quantiles.csv"
QUESTIONS = "questions.txt"


@dataclass(frozen=True, slots=True)
class Request:
    """One rider.

    Attributes:
        prompt_tokens: tokens to read before the first one is written.
        output_tokens: tokens the request will ask for.
        arrival_time: in the unit of its Workload (steps or seconds), from the start of the ride.
        priority: smaller is served first, as in vLLM.
        id: its name; by default its row.
    """

    prompt_tokens: int
    output_tokens: int
    arrival_time: float = 0.0
    priority: int = 0
    id: str = ""


@dataclass(frozen=True)
class Workload:
    """Requests in columns, each an array `[num_requests]` (int64; arrival_time float64, ascending).

    `time_unit` is "steps" or "seconds". Raises `CourseError` for an empty workload, a length below 1,
    a negative prompt or arrivals that go back in time.
    """

    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    arrival_time: np.ndarray
    priority: np.ndarray
    time_unit: str = "steps"

    def __post_init__(self) -> None:
        if not len(self.output_tokens):
            raise CourseError("the workload is empty: give at least one request")
        if (shortest := int(self.output_tokens.min())) < 1:
            row = int(self.output_tokens.argmin())
            raise CourseError(f"request {row} asks for {shortest} tokens: a length must be at least 1")
        if int(self.prompt_tokens.min()) < 0:
            row = int(self.prompt_tokens.argmin())
            raise CourseError(
                f"request {row} has a prompt of {self.prompt_tokens[row]} tokens: it cannot be negative"
            )
        if (np.diff(self.arrival_time) < 0).any():
            raise CourseError("arrival times go back in time: sort the requests by arrival")

    def __len__(self) -> int:
        return len(self.output_tokens)

    def __getitem__(self, row: int) -> Request:
        return Request(
            int(self.prompt_tokens[row]),
            int(self.output_tokens[row]),
            float(self.arrival_time[row]),
            int(self.priority[row]),
            str(row),
        )

    def __iter__(self) -> Iterator[Request]:
        return (self[row] for row in range(len(self)))

    @classmethod
    def from_lengths(
        cls,
        output_tokens: Iterable[int] | np.ndarray,
        prompt_tokens: Iterable[int] | np.ndarray | None = None,
        arrival_time: Iterable[float] | np.ndarray | None = None,
        time_unit: str = "steps",
    ) -> Workload:
        """Requests with these lengths; without arrivals, all wait at the start in this order."""
        outputs = np.asarray(output_tokens if isinstance(output_tokens, np.ndarray) else list(output_tokens))
        if outputs.size and not np.issubdtype(outputs.dtype, np.integer):
            raise CourseError("lengths must be whole numbers below 2**63: round them, and count again")
        count = len(outputs)
        return cls(
            _column(prompt_tokens, count, np.int64),
            outputs.astype(np.int64),
            _column(arrival_time, count, np.float64),
            np.zeros(count, np.int64),
            time_unit,
        )

    @classmethod
    def from_requests(cls, requests: Sequence[Request], time_unit: str = "steps") -> Workload:
        """Columns out of rows, ordered by arrival (ties keep their order)."""
        ordered = sorted(requests, key=lambda request: request.arrival_time)
        return cls(
            np.array([r.prompt_tokens for r in ordered], np.int64),
            np.array([r.output_tokens for r in ordered], np.int64),
            np.array([r.arrival_time for r in ordered], np.float64),
            np.array([r.priority for r in ordered], np.int64),
            time_unit,
        )

    def with_arrivals(self, arrival_time: np.ndarray, time_unit: str = "steps") -> Workload:
        """The same requests, arriving at these times."""
        times = np.asarray(arrival_time, np.float64)
        if len(times) != len(self):
            raise CourseError(f"{len(times)} arrival times for {len(self)} requests: give one each")
        return Workload(self.prompt_tokens, self.output_tokens, times, self.priority, time_unit)

    def in_steps(self, step_ms: float) -> Workload:
        """The same requests with arrivals counted in steps of `step_ms` milliseconds."""
        if step_ms <= 0:
            raise CourseError(f"a step of {step_ms} ms: give a step longer than 0")
        if self.time_unit == "steps":
            return self
        return self.with_arrivals(self.arrival_time * 1000.0 / step_ms)

    def head(self, count: int) -> Workload:
        """The first `count` requests."""
        return Workload(
            self.prompt_tokens[:count],
            self.output_tokens[:count],
            self.arrival_time[:count],
            self.priority[:count],
            self.time_unit,
        )


def _column(values: Iterable | np.ndarray | None, count: int, dtype: type) -> np.ndarray:
    if values is None:
        return np.zeros(count, dtype)
    column: np.ndarray = np.asarray(values if isinstance(values, np.ndarray) else list(values), dtype)
    if len(column) != count:
        raise CourseError(f"{len(column)} values for {count} requests: give one each")
    return column


# ----- lengths -----


def uniform_lengths(count: int, low: int, high: int, seed: int = 0) -> np.ndarray:
    """`count` whole lengths, each of low … high (both included) equally likely."""
    if not 1 <= low <= high:
        raise CourseError(f"uniform lengths from {low} to {high}: need 1 <= low <= high")
    return np.random.default_rng(seed).integers(low, high + 1, size=_positive(count))


def lognormal_lengths(
    count: int, median: float, sigma: float, seed: int = 0, longest: int = 4096
) -> np.ndarray:
    """Lengths whose logarithm is normal: many short, a few very long; clipped to 1 … longest."""
    if median < 1 or sigma < 0:
        raise CourseError(
            f"lognormal lengths with median {median}, sigma {sigma}: need median >= 1 and sigma >= 0"
        )
    draws = np.random.default_rng(seed).lognormal(np.log(median), sigma, size=_positive(count))
    return np.clip(np.rint(draws), 1, longest).astype(np.int64)


def haiku_and_novel_lengths(
    count: int, seed: int = 0, haiku: int = 20, novel: int = 1000, novel_share: float = 0.1
) -> np.ndarray:
    """Two kinds of rider: most want a haiku, one in ten wants a novel. This is the mix that breaks "half"."""
    if not 0 <= novel_share <= 1:
        raise CourseError(f"a share of {novel_share} novels: give a share from 0 to 1")
    is_novel = np.random.default_rng(seed).random(_positive(count)) < novel_share
    return np.where(is_novel, novel, haiku).astype(np.int64)


def homework_lengths(count: int, seed: int = 0, choices: Sequence[int] = (64, 256, 1024)) -> np.ndarray:
    """The homework's mixture of `max_tokens`, each equally likely."""
    return np.random.default_rng(seed).choice(np.asarray(choices, np.int64), size=_positive(count))


@cache
def azure_quantiles() -> np.ndarray:
    """Float64 `[num_quantiles, 3]`: quantile, prompt tokens, output tokens of the Azure conversation trace.

    Computed from AzureLLMInferenceTrace_conv (CC-BY 4.0), 19,366 requests; Patel et al., "Splitwise",
    ISCA 2024. `lessonlib.workload.quantile_table` makes it again from the file.
    """
    with resources.files("lessonlib").joinpath("data", AZURE_QUANTILES).open() as file:
        rows = [line for line in file if not line.startswith("#")]
    return np.loadtxt(rows, delimiter=",", skiprows=1)


def quantile_table(workload: Workload, count: int = 201) -> np.ndarray:
    """Float64 `[count, 3]`: evenly spaced quantiles of prompt and output lengths, each taken on its own."""
    quantiles = np.linspace(0, 1, count)
    return np.column_stack(
        [
            quantiles,
            np.quantile(workload.prompt_tokens, quantiles),
            np.quantile(workload.output_tokens, quantiles),
        ]
    )


def azure_lengths(count: int, seed: int = 0) -> np.ndarray:
    """Output lengths drawn from the shipped quantiles of a production trace, by inverting its distribution."""
    table = azure_quantiles()
    draws = np.random.default_rng(seed).random(_positive(count))
    return np.maximum(1, np.rint(np.interp(draws, table[:, 0], table[:, 2]))).astype(np.int64)


def azure_prompts(count: int, seed: int = 0) -> np.ndarray:
    """Prompt lengths drawn likewise (and apart from the output lengths: their tie is not kept)."""
    table = azure_quantiles()
    draws = np.random.default_rng([seed, 1]).random(_positive(count))
    return np.maximum(1, np.rint(np.interp(draws, table[:, 0], table[:, 1]))).astype(np.int64)


def _positive(count: int) -> int:
    if count < 1:
        raise CourseError(f"{count} requests: give at least 1")
    return count


DISTRIBUTIONS: dict[str, tuple[Callable[..., np.ndarray], tuple[type, ...]]] = {
    "uniform": (uniform_lengths, (int, int)),
    "lognormal": (lognormal_lengths, (float, float)),
    "haiku-novel": (haiku_and_novel_lengths, ()),
    "homework": (homework_lengths, ()),
    "azure": (azure_lengths, ()),
}
DISTRIBUTION_SPECS = "uniform:LOW:HIGH, lognormal:MEDIAN:SIGMA, haiku-novel, homework, azure"


def draw_lengths(spec: str, count: int, seed: int = 0) -> np.ndarray:
    """Lengths from a written distribution such as "uniform:50:800" (`DISTRIBUTION_SPECS` lists them)."""
    name, *words = spec.split(":")
    if name not in DISTRIBUTIONS:
        raise CourseError(f"unknown distribution {spec!r}: use one of {DISTRIBUTION_SPECS}")
    draw, types = DISTRIBUTIONS[name]
    try:
        values = [convert(word) for convert, word in zip(types, words, strict=True)]
    except ValueError:
        raise CourseError(f"cannot read distribution {spec!r}: use one of {DISTRIBUTION_SPECS}") from None
    return draw(count, *values, seed=seed)


def questions(count: int) -> list[str]:
    """The first `count` of the course's 64 questions: some want a word, some a story."""
    lines = resources.files("lessonlib").joinpath("data", QUESTIONS).read_text(encoding="utf-8").splitlines()
    if not 1 <= count <= len(lines):
        raise CourseError(f"{count} questions: there are {len(lines)}")
    return lines[:count]


# ----- arrivals -----


def together(count: int) -> np.ndarray:
    """Everyone waits at the door when the ride begins."""
    return np.zeros(_positive(count))


def poisson_arrivals(count: int, rate: float, seed: int = 0) -> np.ndarray:
    """Arrival times of a Poisson stream of `rate` requests per unit of time, float64 `[count]`, from 0."""
    if rate <= 0:
        raise CourseError(f"a Poisson rate of {rate}: give a rate above 0")
    gaps = np.random.default_rng([seed, 2]).exponential(1.0 / rate, size=_positive(count))
    return np.cumsum(gaps) - gaps[0]


# ----- files -----


def read_trace(path: str | Path) -> Workload:
    """Requests of a CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens (times in seconds).

    This is the schema of the Azure LLM inference traces. Rows are brought into order of arrival; the first
    arrival is time 0. Raises `CourseError` that names the missing column or the line of a bad row.
    """
    path = Path(path)
    if not path.is_file():
        raise CourseError(f"no trace file at {path}: check the path")
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        missing = [name for name in TRACE_COLUMNS if name not in header]
        if missing:
            raise CourseError(f"{path} lacks a column {', '.join(missing)}: name them in its first line")
        places = [header.index(name) for name in TRACE_COLUMNS]
        rows = [_trace_row(path, reader.line_num, row, places) for row in reader if row]
    if not rows:
        raise CourseError(f"{path} has a header but no requests: give a trace with at least one row")
    times, prompts, outputs = (np.array(column) for column in zip(*rows, strict=True))
    order = np.argsort(times, kind="stable")
    return Workload.from_lengths(outputs[order], prompts[order], times[order] - times[order[0]], "seconds")


def _trace_row(path: Path, line: int, row: list[str], places: list[int]) -> tuple[float, int, int]:
    try:
        stamp, context, generated = (row[place] for place in places)
        time = datetime.fromisoformat(stamp[:26]).replace(tzinfo=UTC).timestamp()
        prompt_tokens, output_tokens = int(context), int(generated)
    except (IndexError, ValueError):
        raise CourseError(
            f"{path} line {line}: cannot read {','.join(row)!r}; a row is a timestamp and two whole numbers"
        ) from None
    if prompt_tokens < 0 or output_tokens < 1:
        raise CourseError(
            f"{path} line {line}: {prompt_tokens} prompt and {output_tokens} generated tokens; "
            "need at least 0 and at least 1"
        )
    return time, prompt_tokens, output_tokens
