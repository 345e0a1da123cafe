"""`lesson compare`: contenders take turns on the same rows of work, and every run is written down as it comes.

What is kept equal, and how, is in docs/fairness.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

from kernels.machine import commit
from lessonlib.contenders import presets
from lessonlib.contenders.job import Job, Row
from lessonlib.contenders.presets import Preset
from lessonlib.contenders.process import SPIN_COUNT, ContenderProcess, Died, NoMemory, Refused
from lessonlib.engine.checkpoint import COURSE_MODEL, LlamaConfig, resolve
from lessonlib.engine.frontend.options import DTYPES
from lessonlib.errors import CourseError
from lessonlib.files import check_place
from lessonlib.result import Comparison, Latencies, Peak, Repetition, Result
from lessonlib.trace import Trace

CONTENDERS = (
    "hf",
    "hf-dynamic",
    "hf-cb",
    "course-static",
    "course-continuous",
    "course-paged",
    "course-mixed",
    "course",
    "mine",
    "vllm",
)
DEFAULT_CONTENDERS = ("hf", "course", "vllm")
OVERHEARD = ("mixed", "split", "trace", "online")  # kinds of rows whose ride in vLLM is recorded
WITHOUT_ARRIVALS = ("hf", "hf-dynamic", "hf-cb")  # no way in for a request while others ride
PEAKS_OF = "vllm"  # shares of a rate are of what it can do
IDENTITY_DTYPE = "float32"

HOW = {
    "prompts": "the same token ids for all, nobody has a tokenizer",
    "end": "exactly max_tokens each; an end-of-sequence token ends nothing",
    "sampling": "greedy",
    "prefix_caching": "off: a repetition computes its prompts again",
    "clock": "from the call to the last token on the host; loading and warm-up are outside",
    "warm_up": "each row is run once, whole, before it is timed",
}
TURNS = {
    True: "all processes live, one works at a time and each has its turn; the order rotated by one each round",
    False: "one process at a time has the machine; the order of processes is rotated by one each round, "
    "and within its turn a process times each row, `runs` times in a row",
}


@dataclass(frozen=True)
class Options:
    """What to compare.

    Attributes:
        preset: sizes; see `presets.PRESETS`.
        contenders, workloads: names.
        only: rows of the workloads to run, by name; none: all.
        repeat: rounds; None: the preset's.
        runs: timed runs of a row in each turn; None: the preset's.
        rates, online_requests: of the online rows; a rate is a word as in `presets.arrival_rate`; none: the preset's.
        peak: what rates in percent are shares of; None: vLLM is measured first.
        is_overheard: vLLM's scheduler is recorded in a process of its own, after the timed runs.
        model: a folder, a hub name or "smollm2" on a CPU; None: the preset's.
        slots: of all rows but a split; None: the preset's.
        threads: None: every core that this process may use.
        timeout: seconds that loading, or one run, may take.
        is_timed: False where only tokens and steps are looked at: nobody compiles or warms up, waiting threads do
            not spin, and vLLM is overheard in the run itself. Its seconds mean nothing then.
        out: the file that is written after every run.
        command: as it was typed, for the record.
        seed: of the draws.
        own: the folder of the student's files, for "mine".
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
    is_overheard: bool = True
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
            if name not in CONTENDERS:
                raise CourseError(f"unknown contender {name!r}: use one or more of {', '.join(CONTENDERS)}")
        if len(set(self.contenders)) < len(self.contenders) or not self.contenders:
            raise CourseError(f"contenders {','.join(self.contenders)}: name each once")
        counts = {
            "repeat": self.repeat,
            "runs": self.runs,
            "requests": self.online_requests,
            "slots": self.slots,
            "threads": self.threads,
        }
        for word, value in counts.items():
            if value is not None and value < 1:
                raise CourseError(f"{word} {value}: give at least 1")
        for word in self.rates:
            presets.arrival_rate(word, 1.0)
        if (self.rates or self.online_requests or self.peak) and "online" not in self.workloads:
            raise CourseError("rates, requests and peak are those of online rows: ask for --workload online")


def compare(options: Options, say: Callable[[str], None]) -> Comparison:
    """Run it all. `say` is told what goes on, a line at a time.

    A contender that cannot run is in `Comparison.failures`, the others count. An interruption leaves
    `is_whole` False and what was measured in place; the file, where there is one, holds it too.

    Raises `CourseError` where nothing can be run.
    """
    comparison = Comparison(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=options.command,
        commit=commit(),
        preset=options.preset.name,
        model="",
    )
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        bench = _Bench(options, comparison, say)
        if options.out:
            check_place(options.out)  # better known before than after
        try:
            bench.prepare(Path(folder))
            bench.check_identity()
            bench.time_all()
            bench.overhear_vllm()
            comparison.is_whole = True
        except KeyboardInterrupt:
            say("interrupted: what was measured is kept")
        bench.save()
    return comparison


@dataclass
class _Bench:
    options: Options
    comparison: Comparison
    say: Callable[[str], None]
    job: Job = field(init=False)
    rows: list[Row] = field(init=False)
    identity: Row | None = None
    introduced: dict[str, dict[str, Any]] = field(default_factory=dict)
    own_words: list[str] = field(default_factory=list)
    peak: Peak | None = None
    kv_token_bytes: int = 0

    # ----- before -----

    def prepare(self, folder: Path) -> None:
        """Look at the machine, choose a model for it and draw the rows."""
        options, preset = self.options, self.options.preset
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        threads = options.threads or len(cores) or os.cpu_count() or 1
        on_cpu = preset.device == "cpu"
        self.job = Job(
            model="",
            dtype=preset.dtype,
            device=preset.device,
            slots=options.slots or preset.slots,
            max_model_len=preset.max_model_len,
            threads=threads if on_cpu else 0,
            cores=cores[:threads] if on_cpu else [],
            rows=[],
            is_timed=options.is_timed,
            is_traced=not options.is_timed,
        )
        if "mine" in options.contenders:
            self._look_at_own_parts()
        self._measure_machine()
        prompts, vocab_size = self._choose_model(folder)
        preset = self._with_arrivals(preset, prompts)
        rows = presets.rows_for(options.workloads, preset, prompts, vocab_size, options.seed)
        self.rows = chosen(rows, options.only)
        if preset.identity[0] and len(options.contenders) > 1:
            self.identity = presets.identity_row(preset, prompts, options.seed)
        self._state_facts()

    def _look_at_own_parts(self) -> None:
        """What of the student's own rides along in "mine"."""
        from lessonlib.contenders.mine import inspect

        self.say("mine: checking which parts pass")
        own = inspect(self.options.own)
        self.job = replace(self.job, own=(own.path, own.functions))
        self.own_words = own.words
        for words in own.words:
            self.say(f"  {words}")

    def _measure_machine(self) -> None:
        self.say("measuring the machine's copy bandwidth")
        with self._started("machine", self.job) as machine:
            try:
                found = machine.introduce(self.options.timeout)
            except Died as error:
                raise CourseError(
                    f"the {self.options.preset.name} preset cannot run here: {error}"
                ) from error
        self.comparison.machine = {**found["settings"], "versions": found["versions"]}
        if not found["settings"].get("has_bfloat16", True):
            self.job = replace(self.job, dtype="float16")

    def _choose_model(self, folder: Path) -> tuple[presets.Prompts, int]:
        """Set the job's model; how prompts are drawn for it, and the size of its vocabulary."""
        options = self.options
        if options.model is None and self.job.device == "cuda":
            name, config = presets.shapes_for(self.comparison.machine["gpu_bytes"])
            path, load_format = presets.write_config(folder / "model", config, self.job.dtype), "dummy"
        else:
            name, load_format = options.model or COURSE_MODEL, "auto"
            path = resolve(name, load_format)
        self.comparison.model = name
        self.job = replace(self.job, model=str(path), load_format=load_format)
        vocab_size = LlamaConfig.load(path).vocab_size
        if name.lower() != COURSE_MODEL:
            return presets.random_prompts(vocab_size), vocab_size
        from transformers import AutoTokenizer

        return presets.question_prompts(AutoTokenizer.from_pretrained(path)), vocab_size

    def _with_arrivals(self, preset: Preset, prompts: presets.Prompts) -> Preset:
        """The preset with the rates of arrival and the requests that were asked for."""
        options = self.options
        preset = replace(preset, online_requests=options.online_requests or preset.online_requests)
        if not options.rates:
            return preset
        if any(map(presets.is_share, options.rates)):
            self.peak = options.peak or self._measure_peak(preset, prompts)
        most = self.peak.rate if self.peak else 0.0
        return replace(preset, rates=tuple(presets.arrival_rate(word, most) for word in options.rates))

    def _measure_peak(self, preset: Preset, prompts: presets.Prompts) -> Peak:
        """How many of the online requests vLLM finishes a second where all wait at the start.

        One run after a warm-up, in a process of its own. Raises `CourseError` where vLLM does not run.
        """
        row = presets.mixed(preset.online_requests, preset, prompts, self.options.seed)
        self.say(f"vllm: {row.name}, all at once, to find its peak")
        with self._started(PEAKS_OF, replace(self.job, rows=[row])) as process:
            try:
                process.introduce(self.options.timeout)
                process.run(row.name, self.options.timeout)
                seconds = process.run(row.name, self.options.timeout)["seconds"]
            except Died as error:
                raise CourseError(
                    f"the peak of vLLM cannot be measured, give it with --peak: {error}"
                ) from error
        return Peak(len(row) / seconds, f"{PEAKS_OF} on {row.name}, just before")

    def _state_facts(self) -> None:
        weight_bytes, kv_bytes = bytes_read(LlamaConfig.load(Path(self.job.model)), self.job.dtype)
        self.kv_token_bytes = kv_bytes
        longest = max(self.rows, key=lambda row: row.longest)
        if longest.longest > self.job.max_model_len:
            raise CourseError(
                f"row {longest.name!r} has a request of {longest.longest} tokens, the limit is "
                f"{self.job.max_model_len}: take a shorter trace"
            )
        bandwidth = self.comparison.machine["copy_bandwidth"]
        self.comparison.rows = [
            presets.facts(row, self._job_for(row), weight_bytes, kv_bytes, bandwidth) for row in self.rows
        ]
        self.comparison.how = {
            **HOW,
            "order": TURNS[self.options.preset.takes_turns],
            "dtype": self.job.dtype,
            "slots": self.job.slots,
            "threads": self.job.threads or "not bound: the work is the card's",
            "spin_count": os.environ.get("GOMP_SPINCOUNT", SPIN_COUNT),
            "seed": self.options.seed,
            **({"mine": self.own_words} if self.own_words else {}),
            **({"peak": asdict(self.peak)} if self.peak else {}),
            "rounds": self._rounds,
            "runs": self._runs,
        }

    def _job_for(self, row: Row) -> Job:
        is_chosen = self.options.slots and row.kind != "split"
        return self.job if is_chosen else self.options.preset.job_for(row, self.job)

    # ----- do they say the same? -----

    def check_identity(self) -> None:
        """In float32 every contender gives the same tokens, or it is said where they part."""
        if self.identity is None:
            return
        job = replace(self.job, dtype=IDENTITY_DTYPE, rows=[self.identity], is_timed=False)
        said: dict[str, list[list[int]]] = {}
        self.say(f"identity check: {len(self.identity)} prompts in {IDENTITY_DTYPE}")
        with self._all_started(self._names(), job) as processes:
            for name, process in processes.items():
                with self._noting(name):
                    said[name] = process.run(self.identity.name, self.options.timeout)["tokens"]
        for pair in combinations(said, 2):
            same = agreement(*(said[name] for name in pair))
            self.comparison.agreement.append(
                {"row": self.identity.name, "dtype": IDENTITY_DTYPE, "pair": list(pair), **same}
            )
            self.say(f"  {' and '.join(pair)}: {same['same']} of {same['requests']} answers identical")
        self.save()

    # ----- how fast? -----

    def time_all(self) -> None:
        """Every row, by every contender, in turns."""
        for job, rows in groupby(self.rows, self._job_for):
            job = replace(job, rows=list(rows))
            if self.options.preset.takes_turns:
                self._take_turns(job)
            else:
                self._one_after_another(job)
        self._compare_answers()

    def _take_turns(self, job: Job) -> None:
        with self._all_started(self._names(), job) as processes:
            for row in job.rows:
                ready = [name for name in processes if self._warm_up(processes[name], row)]
                for turn in range(self._rounds):
                    for place, name in enumerate(rotated(ready, turn)):
                        self._time(processes[name], row, turn, place)

    def _one_after_another(self, job: Job) -> None:
        for turn in range(self._rounds):
            for place, name in enumerate(rotated(self._names(), turn)):
                with self._all_started([name], job) as processes:
                    for process in processes.values():
                        self._one_turn(process, job.rows, turn, place)

    def _one_turn(self, process: ContenderProcess, rows: Sequence[Row], turn: int, place: int) -> None:
        for row in rows:
            if self._warm_up(process, row):
                self._time(process, row, turn, place)

    def _warm_up(self, process: ContenderProcess, row: Row) -> bool:
        """Run the row once, whole; False where this contender does not run it."""
        if row.arrivals and process.name in WITHOUT_ARRIVALS:
            return False
        if not self.options.is_timed:
            return True
        self.say(f"{process.name}: {row.name}, warming up")
        answer = self._run(process, row)
        if answer is None:
            return False
        self._result(process.name, row).settings.setdefault("warm_up_seconds", round(answer["seconds"], 3))
        return True

    def _time(self, process: ContenderProcess, row: Row, turn: int, place: int) -> None:
        """A turn's timed runs of a row."""
        for _ in range(self._runs):
            self._time_once(process, row, turn, place)

    def _time_once(self, process: ContenderProcess, row: Row, turn: int, place: int) -> None:
        answer = self._run(process, row)
        if answer is None:
            return
        result = self._result(process.name, row)
        latencies = Latencies.of(answer["token_times"], row.arrival_times, "of a timed run")
        repetition = Repetition(
            turn,
            place,
            answer["seconds"],
            row.useful_tokens,
            answer["raw_tokens"],
            latencies.percentile(99) if latencies else None,
            latencies.gaps.get("p99") if latencies else None,
        )
        result.repetitions.append(repetition)
        result.settings |= answer["settings"]
        result.settings["kv_bytes"] = kv_tokens(result.settings) * self.kv_token_bytes
        result.peak_bytes = answer["peak_bytes"]
        result.digests = [digest(ids) for ids in answer["tokens"]]
        result.latencies = latencies or result.latencies
        if answer["trace"]:
            result.trace = Trace.from_dict(answer["trace"])
        self.say(f"{process.name}: {row.name}, {repetition.seconds:.2f} s, {repetition.rate:,.0f} tok/s")
        self.save()

    def _compare_answers(self) -> None:
        """What share of answers is the same to the last token, for each pair on each row.

        Random weights are not compared: every engine draws its own.
        """
        if self.job.load_format == "dummy":
            return
        for row in self.rows:
            told = [each for each in self.comparison.results if each.row == row.name and each.digests]
            for one, other in combinations(told, 2):
                same = sum(a == b for a, b in zip(one.digests, other.digests, strict=True))
                pair = [one.contender, other.contender]
                self.comparison.agreement.append(
                    {
                        "row": row.name,
                        "dtype": self.job.dtype,
                        "pair": pair,
                        "requests": len(row),
                        "same": same,
                    }
                )

    # ----- who boards when, in vLLM? -----

    def overhear_vllm(self) -> None:
        """vLLM's Trace and latencies, from a process of its own: the timed ones had an unchanged scheduler."""
        if "vllm" not in self._names() or not (self.options.is_timed and self.options.is_overheard):
            return
        told = [row for row in self.rows if row.kind in OVERHEARD and self._ran("vllm", row)]
        for job, group in groupby(told, self._job_for):
            rows = list(group)
            self.say("vllm: once more, to overhear its scheduler")
            with self._all_started(["vllm"], replace(job, rows=rows, is_traced=True)) as processes:
                for process in processes.values():
                    self._overhear(process, rows)

    def _ran(self, name: str, row: Row) -> bool:
        result = self.comparison.of(name, row.name)
        return result is not None and bool(result.repetitions)

    def _overhear(self, process: ContenderProcess, rows: Sequence[Row]) -> None:
        """Each row once, after a ride that warms up."""
        try:
            process.run(rows[0].name, self.options.timeout)
            for row in rows:
                result = self._result(process.name, row)
                result.trace = Trace.from_dict(process.run(row.name, self.options.timeout)["trace"])
                if not result.latencies:
                    source = "of an untimed run, by its scheduler's steps"
                    result.latencies = Latencies.of(result.trace.token_times(), row.arrival_times, source)
                self.save()
        except Died as error:
            self.say(f"vllm could not be overheard: {error}")

    # ----- processes -----

    @property
    def _rounds(self) -> int:
        return self.options.repeat or self.options.preset.repeat

    @property
    def _runs(self) -> int:
        return self.options.runs or self.options.preset.runs

    def _names(self) -> list[str]:
        """Contenders that have not failed as a whole."""
        return [name for name in self.options.contenders if name not in self.comparison.failures]

    @contextlib.contextmanager
    def _started(self, name: str, job: Job) -> Iterator[ContenderProcess]:
        process = ContenderProcess(name, job)
        try:
            yield process
        finally:
            process.close()

    @contextlib.contextmanager
    def _all_started(self, names: Sequence[str], job: Job) -> Iterator[dict[str, ContenderProcess]]:
        """The processes whose model is loaded; what the others said is in `failures`."""
        with contextlib.ExitStack() as stack:
            started = {}
            for name in names:
                self.say(f"{name}: starting, {job.dtype}")
                with self._noting(name):
                    process = stack.enter_context(self._started(name, job))
                    self.introduced[name] = process.introduce(self.options.timeout)
                    started[name] = process
            yield started

    @contextlib.contextmanager
    def _noting(self, name: str) -> Iterator[None]:
        """Whatever stops a contender from running at all is kept, and said."""
        try:
            yield
        except (Died, CourseError) as error:
            self.comparison.failures[name] = str(error)
            self.comparison.is_refused |= isinstance(error, Refused | CourseError)
            self.say(f"{name}: {error}")
            self.save()

    def _run(self, process: ContenderProcess, row: Row) -> dict[str, Any] | None:
        """One run; None where it failed, which the row's result says."""
        try:
            return process.run(row.name, self.options.timeout)
        except Died as error:
            result = self._result(process.name, row)
            result.failure, result.is_out_of_memory = str(error), isinstance(error, NoMemory)
            self.comparison.is_refused |= isinstance(error, Refused)
            self.say(f"{process.name}: {row.name}: {error}")
            self.save()
            return None

    def _result(self, name: str, row: Row) -> Result:
        """The contender's result on the row, a new one where there is none yet."""
        found = self.comparison.of(name, row.name)
        if found is None:
            about = self.introduced[name]
            found = Result(name, row.name, settings=dict(about["settings"]), versions=about["versions"])
            found.settings["load_seconds"] = round(about["took"], 1)
            self.comparison.results.append(found)
        return found

    def save(self) -> None:
        """Write what there is so far."""
        if self.options.out:
            self.comparison.save(self.options.out)


def contenders_for(preset: Preset, workloads: Sequence[str]) -> Sequence[str]:
    """Who runs where nobody was named: a split has its own chain."""
    return preset.split_chain if set(workloads) == {"split"} else DEFAULT_CONTENDERS


def chosen(rows: Sequence[Row], only: Sequence[str]) -> list[Row]:
    """The rows named in `only`, all where it is empty. Raises `CourseError` for a name that no row has."""
    names = [row.name for row in rows]
    if unknown := [name for name in only if name not in names]:
        raise CourseError(f"no row {unknown[0]!r} in these workloads: there is {', '.join(names)}")
    return [row for row in rows if not only or row.name in only]


def rotated(names: Sequence[str], turns: int) -> list[str]:
    """The same names, `turns` of them moved from the front to the end."""
    cut = turns % len(names) if names else 0
    return [*names[cut:], *names[:cut]]


def digest(ids: Sequence[int]) -> str:
    """Twelve characters that differ where token ids do."""
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()[:12]


def kv_tokens(settings: Mapping[str, Any]) -> int:
    """Tokens that a contender has K/V memory for: in its blocks, or in the largest cache of its static batches."""
    if settings["num_blocks"] is None:
        return settings["cache_tokens"]
    return settings["num_blocks"] * settings["block_size"]


def agreement(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> dict[str, Any]:
    """How many answers are the same to the last token, and where the first other one parts: (request, token)."""
    pairs = list(zip(one, other, strict=True))
    parts = [
        (
            request,
            next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))),
        )
        for request, (a, b) in enumerate(pairs)
        if list(a) != list(b)
    ]
    return {
        "requests": len(pairs),
        "same": len(pairs) - len(parts),
        "first_difference": parts[0] if parts else None,
    }


def bytes_read(config: LlamaConfig, dtype: str) -> tuple[int, int]:
    """Bytes of the weights that a step reads, and of one token's keys and values.

    The input embedding gives a row a token only; the output one is read whole.
    """
    size = DTYPES[dtype].itemsize
    heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    attention = config.hidden_size * (2 * heads + 2 * kv_heads)
    layer = attention + 3 * config.hidden_size * config.intermediate_size
    weights = config.num_layers * layer + config.vocab_size * config.hidden_size
    return weights * size, 2 * config.num_layers * kv_heads * size
