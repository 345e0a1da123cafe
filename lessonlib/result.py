"""The one record of a comparison: how long each contender took for each row of work, and whether answers agree.

A `Result` is one contender on one row; a `Comparison` is a file of them with the machine, the versions, the date and
the command. Every picture and table of contenders reads these and nothing else.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lessonlib.errors import CourseError
from lessonlib.files import write_whole
from lessonlib.metrics import percentiles
from lessonlib.trace import Trace
from lessonlib.utilization import dollars_per_million_tokens

SCHEMA_VERSION = 1
KIND = "comparison"
DOLLARS_A_MONTH = 30_000
LIMITS = ("max_num_seqs", "max_num_batched_tokens", "block_size", "num_blocks", "kv_bytes")
"""Settings of every result: requests at once, tokens a step and a K/V block, blocks, bytes of K/V. None: no limit."""
FORMER_POLICIES = {
    ("course-continuous", "continuous"): "prefill-first-reserved",
    ("course-paged", "paged"): "prefill-first",
}
"""(contender, policy in records of before 2026-12) -> the name that the policy has in `scheduling.policies`."""
FORMER_FIELDS = {"place": "position", "words": "description"}
"""Field of a run or a row in records of before 2026-12 -> its name now."""
KEEPS_UP = 0.95  # of the arrival rate: a contender that starts fewer requests is saturated


@dataclass(frozen=True)
class Repetition:
    """One timed run.

    Attributes:
        round: of the turns, from 0.
        position: of the contender in that round's order, from 0.
        seconds: wall clock, from the call to the last token on the host.
        useful_tokens: output tokens that were asked for.
        raw_tokens: output tokens that were computed: more, if a static batch waits for its longest.
        ttft_p99, gap_p99: 99th percentiles of the times to first token and between tokens, in seconds; None if they
            were not taken.
    """

    round: int
    position: int
    seconds: float
    useful_tokens: int
    raw_tokens: int
    ttft_p99: float | None = None
    gap_p99: float | None = None

    @property
    def rate(self) -> float:
        """Useful tokens per second."""
        return self.useful_tokens / self.seconds


@dataclass(frozen=True)
class Latencies:
    """Times of tokens, in seconds.

    Attributes:
        source: the run they are from, as a text.
        ttft: of each request, from its arrival to its first token.
        tpot: of each request with two tokens or more, the mean time from one token to the next.
        gaps: percentiles of all times from one token of a request to its next ("p50", "p90", "p99"), and "max".
    """

    source: str
    ttft: list[float]
    tpot: list[float]
    gaps: dict[str, float]

    @classmethod
    def of(
        cls, token_times: Sequence[Sequence[float]], arrivals: Sequence[float], source: str
    ) -> Latencies | None:
        """From the times of each request's tokens, in seconds like the arrivals; None if no times were taken."""
        pairs = [(times, arrival) for times, arrival in zip(token_times, arrivals, strict=False) if times]
        if not pairs:
            return None
        gaps = np.concatenate([np.diff(times) for times, _ in pairs])
        spread = {**percentiles(gaps), "max": float(gaps.max())} if len(gaps) else {}
        return cls(
            source,
            [round(times[0] - arrival, 6) for times, arrival in pairs],
            [round((times[-1] - times[0]) / (len(times) - 1), 6) for times, _ in pairs if len(times) > 1],
            spread,
        )

    def percentile(self, q: float) -> float:
        """The q-th percentile of the times to first token."""
        return float(np.percentile(self.ttft, q))


@dataclass(frozen=True)
class Pace:
    """How one contender kept up with requests that arrive over time.

    Attributes:
        offered: requests that arrived, a second.
        started: first tokens a second, between the first request's and the last one's. As many as arrive, unless the
            queue grows. The time after the last first token does not count.
        finished: requests finished, a second of the whole run.
        ttft_p99, gap_p99: 99th percentiles of the times to first token and between tokens, in seconds; the median of
            several runs.
        is_saturated: whether it started less than 95% of the requests that arrived.
    """

    offered: float
    started: float
    finished: float
    ttft_p99: float
    gap_p99: float
    is_saturated: bool

    @classmethod
    def of(cls, row: RowFacts, result: Result) -> Pace | None:
        """From a row with arrivals and its result; None if there are no arrivals, runs or latencies."""
        latencies = result.latencies
        if not row.rate or not result.repetitions or latencies is None:
            return None
        gaps = row.requests - 1
        seconds = gaps / row.rate + latencies.ttft[-1] - latencies.ttft[0]
        started = gaps / seconds
        return cls(
            offered=row.rate,
            started=started,
            finished=row.requests / result.seconds,
            ttft_p99=_median([each.ttft_p99 for each in result.repetitions], latencies.percentile(99)),
            gap_p99=_median([each.gap_p99 for each in result.repetitions], latencies.gaps.get("p99", 0.0)),
            is_saturated=started < KEEPS_UP * row.rate,
        )


@dataclass
class Result:
    """One contender on one row.

    Attributes:
        contender, row: names.
        repetitions: the timed runs, in the order they were made, without the warm-up.
        settings, versions: of the contender.
        peak_bytes: the most memory held: "host", and "gpu" if there is one.
        digests: of each request's output tokens; equal digests are equal answers.
        latencies: None if no times were taken.
        trace: of a run; None if the contender has none.
        failure: a text: why repetitions are missing; "" if none is.
        is_out_of_memory: whether the failure is that the work did not fit in memory.
    """

    contender: str
    row: str
    repetitions: list[Repetition] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)
    latencies: Latencies | None = None
    trace: Trace | None = None
    failure: str = ""
    is_out_of_memory: bool = False

    @property
    def seconds(self) -> float:
        """The median of the repetitions; NaN without any."""
        return (
            statistics.median(each.seconds for each in self.repetitions) if self.repetitions else float("nan")
        )

    @property
    def rate(self) -> float:
        """Useful tokens per second: the median of the repetitions; NaN without any."""
        return statistics.median(each.rate for each in self.repetitions) if self.repetitions else float("nan")

    @property
    def raw_rate(self) -> float:
        """Computed tokens per second: the median of the repetitions; NaN without any."""
        rates = [each.raw_tokens / each.seconds for each in self.repetitions]
        return statistics.median(rates) if rates else float("nan")

    @property
    def spread(self) -> tuple[float, float]:
        """Useful tokens per second of the slowest and the fastest repetition."""
        rates = [each.rate for each in self.repetitions] or [float("nan")]
        return min(rates), max(rates)

    @property
    def dollars_per_million(self) -> float:
        """Dollars for a million useful tokens, on a machine at $30,000 a month that is never idle."""
        return dollars_per_million_tokens(DOLLARS_A_MONTH, self.rate, utilization=1.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        plain = {
            name: value
            for name, value in vars(self).items()
            if name not in ("repetitions", "latencies", "trace")
        }
        return {
            **plain,
            "tokens_per_second": self.rate if self.repetitions else None,
            "dollars_per_million_tokens": self.dollars_per_million if self.repetitions else None,
            "repetitions": [asdict(each) for each in self.repetitions],
            "latencies": asdict(self.latencies) if self.latencies else None,
            "trace": self.trace.to_dict() if self.trace else None,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Result:
        """The inverse of `to_dict`. In older records a policy is called by its name of today."""
        data = _with_policy_of_today(data)
        known = {name: data[name] for name in cls.__dataclass_fields__}
        return cls(
            **{
                **known,
                "repetitions": [Repetition(**_with_fields_of_today(each)) for each in data["repetitions"]],
                "latencies": Latencies(**data["latencies"]) if data["latencies"] else None,
                "trace": Trace.from_dict(data["trace"]) if data["trace"] else None,
            }
        )


@dataclass(frozen=True)
class RowFacts:
    """The facts about a row of work.

    Attributes:
        name, kind: see `contenders.job.Row`.
        requests, prompt_tokens, output_tokens: of the whole row.
        description: a text for tables.
        rate: arrivals a second; 0 if all requests wait at the start.
        floor_seconds: the least time by the memory roofline: bytes that must be read ÷ the machine's copy bandwidth.
    """

    name: str
    kind: str
    requests: int
    prompt_tokens: int
    output_tokens: int
    description: str = ""
    rate: float = 0.0
    floor_seconds: float = 0.0


@dataclass(frozen=True)
class Peak:
    """The most requests a second that an engine finishes, with all of them waiting at the start.

    Attributes:
        rate: requests a second.
        source: a text: the contender, the row, and when it was measured.
    """

    rate: float
    source: str


@dataclass
class Comparison:
    """Contenders side by side, with everything that is needed to judge the result or to repeat it.

    Attributes:
        date, command, commit: of the measurement.
        machine: the facts from `contenders.machine`, the copy bandwidth in bytes per second among them.
        preset, model: names.
        how: what was kept equal, and in which order runs were made.
        rows, results: the work and its outcomes.
        agreement: a dictionary for each pair of contenders on each row: how many answers were the same.
        failures: contender -> why it could not run at all.
        is_refused: whether one of them did not take its input: a version, a model, a path.
        is_whole: whether everything was measured: False for an interrupted comparison.
    """

    date: str
    command: str
    commit: str
    preset: str
    model: str
    machine: dict[str, Any] = field(default_factory=dict)
    how: dict[str, Any] = field(default_factory=dict)
    rows: list[RowFacts] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    agreement: list[dict[str, Any]] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    is_refused: bool = False
    is_whole: bool = False

    def of(self, contender: str, row: str) -> Result | None:
        """The result of a contender on a row; None if it is missing."""
        return next((each for each in self.results if (each.contender, each.row) == (contender, row)), None)

    def pace(self, contender: str, row: str) -> Pace | None:
        """How a contender kept up with a row's arrivals; None for a row without arrivals, or one it did not run."""
        facts = next((each for each in self.rows if each.name == row), None)
        result = self.of(contender, row)
        return Pace.of(facts, result) if facts and result else None

    def peak(self, contender: str) -> Peak:
        """A contender's peak, on the mixed row of most requests. Raises `CourseError` if it finished no mixed row."""
        rows = sorted((row for row in self.rows if row.kind == "mixed"), key=lambda row: -row.requests)
        for row in rows:
            result = self.of(contender, row.name)
            if result and result.repetitions:
                return Peak(row.requests / result.seconds, f"{contender} on {row.name}, {self.date}")
        raise CourseError(f"{contender} finished no mixed row there: measure it with --workload mixed")

    def steps(self, row: str) -> dict[str, int]:
        """Contender -> forward passes that it took for the row, for contenders with a Trace."""
        return {
            each.contender: each.trace.num_steps for each in self.results if each.row == row and each.trace
        }

    @property
    def sweep_rows(self) -> list[RowFacts]:
        """The rows of one fixed length, by batch size; empty if no sweep was run."""
        swept = any(row.kind == "sweep" for row in self.rows)
        rows = [row for row in self.rows if row.kind in ("sweep", "fixed")] if swept else []
        return sorted(rows, key=lambda row: row.requests)

    def sweep(self, contender: str) -> tuple[list[int], list[float]]:
        """The batch sizes that a contender finished in the sweep, ascending, and its tokens a second at each."""
        found = [(row.requests, self.of(contender, row.name)) for row in self.sweep_rows]
        points = [(batch, each.rate) for batch, each in found if each and each.repetitions]
        return [batch for batch, _ in points], [rate for _, rate in points]

    @property
    def contenders(self) -> list[str]:
        """Names, in the order they first appear."""
        return list(dict.fromkeys(each.contender for each in self.results))

    @property
    def has_failures(self) -> bool:
        """Whether something could not be run, apart from batches that did not fit in memory."""
        return bool(self.failures) or any(each.failure and not each.is_out_of_memory for each in self.results)

    def save(self, path: str | Path) -> Path:
        """Write the file, whole or not at all. Raises `CourseError` if it cannot be written."""
        return write_whole(path, self._text())

    def _text(self) -> str:
        """JSON with one result a line, so that people can read it too."""
        plain = {"schema": SCHEMA_VERSION, "kind": KIND, **vars(self)}
        plain["rows"] = [asdict(each) for each in self.rows]
        plain["results"] = [self._with_pace(each) for each in self.results]
        lines = [f"{json.dumps(name)}: {_lines(value)}" for name, value in plain.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def _with_pace(self, result: Result) -> dict[str, Any]:
        """A result as plain data, with its pace if requests arrive over time."""
        pace = self.pace(result.contender, result.row)
        return {**result.to_dict(), **({"pace": asdict(pace)} if pace else {})}

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Read a file of `save`. Raises `CourseError` for another file or another schema."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not JSON"
            raise CourseError(
                f"cannot read a comparison from {path} ({reason}): give a file of `lesson compare --json FILE`"
            ) from error
        if not isinstance(data, dict) or data.get("kind") != KIND:
            raise CourseError(f"{path} is no comparison: make one with `lesson compare --json FILE`")
        if data.get("schema") != SCHEMA_VERSION:
            raise CourseError(
                f"{path} has schema {data.get('schema')}, this course reads {SCHEMA_VERSION}: measure again"
            )
        try:
            known = {name: data[name] for name in cls.__dataclass_fields__}
            known["rows"] = [RowFacts(**_with_fields_of_today(each)) for each in data["rows"]]
            known["results"] = [Result.from_dict(each) for each in data["results"]]
            return cls(**known)
        except (KeyError, TypeError) as error:
            raise CourseError(f"{path} is no whole comparison: {error} is missing or malformed") from error


def _with_fields_of_today(data: Mapping[str, Any]) -> dict[str, Any]:
    """A run or a row as plain data, its fields renamed where an older record has their former names."""
    return {FORMER_FIELDS.get(name, name): value for name, value in data.items()}


def _with_policy_of_today(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A result as plain data, its policy renamed where an older record calls it by a name that it shared."""
    name = FORMER_POLICIES.get((data["contender"], data["settings"].get("policy", "")))
    if name is None:
        return data
    settings, trace = {**data["settings"], "policy": name}, data["trace"]
    if trace:
        trace = {**trace, "header": {**trace["header"], "policy": name}}
    return {**data, "settings": settings, "trace": trace}


def _median(values: Sequence[float | None], otherwise: float) -> float:
    """The median of the values that are not None; `otherwise` if all are, as in older files."""
    known = [each for each in values if each is not None]
    return statistics.median(known) if known else otherwise


def _lines(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(json.dumps(each) for each in value) + "\n]"
    return json.dumps(value)
