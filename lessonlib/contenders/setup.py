"""Before anything is timed: the machine, a model that fits it, and the rows of work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lessonlib.contenders import presets
from lessonlib.contenders.job import Job, Row
from lessonlib.contenders.own_parts import check_own_parts
from lessonlib.contenders.presets import Preset
from lessonlib.contenders.process import SPIN_COUNT, ContenderError
from lessonlib.contenders.registry import MACHINE, entry
from lessonlib.contenders.session import Session
from lessonlib.contenders.sizes import bytes_read
from lessonlib.contenders.weights import write_weights
from lessonlib.engine.checkpoint import COURSE_MODEL, LlamaConfig, resolve
from lessonlib.errors import CourseError
from lessonlib.result import Peak

PEAKS_OF = "vllm"  # rates in percent are shares of its peak

HOW = {
    "prompts": "the same token ids for all; no contender has a tokenizer",
    "end": "exactly max_tokens each; an end-of-sequence token ends nothing",
    "sampling": "greedy, except where a row says otherwise",
    "weights": "one set of files, read by all",
    "prefix_caching": "off: a repetition computes its prompts again; in conversations on, and emptied before each run",
    "clock": "from the call to the last token on the host; loading and warm-up are outside",
    "warm_up": "each row is run once, whole, before it is timed",
}
TURNS = {
    True: "all processes live, one works at a time and each has its turn; the order rotated by one each round",
    False: "one process at a time has the machine; the order of processes is rotated by one each round, "
    "and within its turn a process times each row, `runs` times in a row",
}


@dataclass(frozen=True)
class Setup:
    """The work, ready to be run.

    Attributes:
        job: for all rows, which `job_for` adapts to one.
        rows: the work.
        identity: the row that all contenders must answer alike in float32; None: no such check.
        kv_token_bytes: bytes of one token's keys and values.
        preset, slots: as asked for.
    """

    job: Job
    rows: list[Row]
    identity: Row | None
    kv_token_bytes: int
    preset: Preset
    slots: int | None

    def job_for(self, row: Row) -> Job:
        """The job with the slots and the memory that this row is run with."""
        job = self.preset.job_for(row, self.job)
        return replace(job, slots=self.slots) if self.slots and row.kind != "split" else job


def prepare(session: Session, folder: Path) -> Setup:
    """Measure the machine, choose a model for it and draw the rows; the comparison gets the facts about them.

    Args:
        folder: for a model's config that has to be written.

    Raises:
        CourseError: if the machine, the model, or a workload is not to be had.
    """
    options, comparison = session.options, session.comparison
    job = _bare_job(options.preset, options.slots, options.threads, options.is_timed)
    own_lines: list[str] = []
    if any(entry(name).takes_own_parts for name in options.contenders):
        job, own_lines = _with_own_parts(session, job)
    job = _measure_machine(session, job)
    job = _choose_model(session, job, folder)
    config = LlamaConfig.load(Path(job.model))
    prompts = _prompts(comparison.model, job, config.vocab_size)
    preset, peak = _with_arrivals(session, job, prompts)
    rows = presets.rows_for(options.workloads, preset, prompts, config.vocab_size, options.seed)
    weight_bytes, kv_token_bytes = bytes_read(config, job.dtype)
    setup = Setup(
        job,
        chosen(rows, options.only),
        presets.identity_row(preset, prompts, options.seed) if _checks_identity(session) else None,
        kv_token_bytes,
        preset,
        options.slots,
    )
    _check_lengths(setup)
    bandwidth = comparison.machine["copy_bandwidth"]
    comparison.rows = [
        presets.facts(row, setup.job_for(row), weight_bytes, kv_token_bytes, bandwidth) for row in setup.rows
    ]
    comparison.how = {
        **HOW,
        "order": TURNS[preset.takes_turns],
        "dtype": job.dtype,
        "slots": job.slots,
        "threads": job.threads or "not bound: the work is the card's",
        "spin_count": os.environ.get("GOMP_SPINCOUNT", SPIN_COUNT),
        "seed": options.seed,
        **({"mine": own_lines} if own_lines else {}),
        **({"peak": asdict(peak)} if peak else {}),
        "rounds": options.rounds,
        "runs": options.runs_a_turn,
    }
    return setup


def _bare_job(preset: Preset, slots: int | None, threads: int | None, is_timed: bool) -> Job:
    """A job without a model and rows, on the cores that this process may use."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    threads = threads or len(cores) or os.cpu_count() or 1
    on_cpu = preset.device == "cpu"
    return Job(
        model="",
        dtype=preset.dtype,
        device=preset.device,
        slots=slots or preset.slots,
        max_model_len=preset.max_model_len,
        threads=threads if on_cpu else 0,
        cores=cores[:threads] if on_cpu else [],
        rows=[],
        is_timed=is_timed,
        is_traced=not is_timed,
    )


def _with_own_parts(session: Session, job: Job) -> tuple[Job, list[str]]:
    """The job with the student's functions that pass their checks, and a line about each task."""
    session.log("mine: checking which parts pass")
    own = check_own_parts(session.options.own)
    for line in own.lines:
        session.log(f"  {line}")
    return replace(job, own=(own.path, own.functions)), own.lines


def _measure_machine(session: Session, job: Job) -> Job:
    """Record the facts about the machine. On a card without bfloat16 the job gets float16."""
    session.log("measuring the machine's copy bandwidth")
    with session.started(MACHINE.name, job) as process:
        try:
            found = process.introduce(session.options.timeout)
        except ContenderError as error:
            name = session.options.preset.name
            raise CourseError(f"the {name} preset cannot run here: {error}") from error
    session.comparison.machine = {**found["settings"], "versions": found["versions"]}
    return job if found["settings"].get("has_bfloat16", True) else replace(job, dtype="float16")


def _choose_model(session: Session, job: Job, folder: Path) -> Job:
    """The job with the model that was asked for, or one that fits the machine."""
    wanted = session.options.model
    if wanted is None and job.device == "cuda":
        name, config = presets.shapes_for(
            session.comparison.machine["gpu_bytes"], session.options.preset.shapes
        )
        path = presets.write_config(folder / "model", config, job.dtype)
        session.log(f"drawing weights for {name}, the same for all")
        write_weights(path, job.dtype, job.device)
    else:
        name = wanted or COURSE_MODEL
        path = resolve(name)
    session.comparison.model = name
    return replace(job, model=str(path))


def _prompts(model: str, job: Job, vocab_size: int) -> presets.Prompts:
    """How prompts are drawn: real questions for the course's model, random ids for others."""
    if model.lower() != COURSE_MODEL:
        return presets.random_prompts(vocab_size)
    from transformers import AutoTokenizer

    return presets.question_prompts(AutoTokenizer.from_pretrained(job.model))


def _with_arrivals(session: Session, job: Job, prompts: presets.Prompts) -> tuple[Preset, Peak | None]:
    """The preset with the arrival rates and requests that were asked for, and the peak, if rates are shares of it."""
    options = session.options
    preset = replace(
        options.preset, online_requests=options.online_requests or options.preset.online_requests
    )
    if not options.rates:
        return preset, None
    peak = None
    if any(map(presets.is_share, options.rates)):
        peak = options.peak or _measure_peak(session, job, preset, prompts)
    rates = tuple(presets.arrival_rate(rate, peak.rate if peak else 0.0) for rate in options.rates)
    return replace(preset, rates=rates), peak


def _measure_peak(session: Session, job: Job, preset: Preset, prompts: presets.Prompts) -> Peak:
    """How many of the online requests vLLM finishes a second if all wait at the start.

    One run after a warm-up, in a process of its own. Raises `CourseError` if vLLM does not run.
    """
    timeout = session.options.timeout
    row = presets.mixed(preset.online_requests, preset, prompts, session.options.seed)
    session.log(f"{PEAKS_OF}: {row.name}, all at once, to find its peak")
    with session.started(PEAKS_OF, replace(job, rows=[row])) as process:
        try:
            process.introduce(timeout)
            process.run(row.name, timeout)
            seconds = process.run(row.name, timeout)["seconds"]
        except ContenderError as error:
            raise CourseError(f"the peak of vLLM cannot be measured, give it with --peak: {error}") from error
    return Peak(len(row) / seconds, f"{PEAKS_OF} on {row.name}, just before")


def _checks_identity(session: Session) -> bool:
    options = session.options
    return bool(options.preset.identity[0]) and len(options.contenders) > 1 and options.checks_identity


def chosen(rows: Sequence[Row], only: Sequence[str]) -> list[Row]:
    """The rows named in `only`, or all if it is empty. Raises `CourseError` for a name that no row has."""
    names = [row.name for row in rows]
    if unknown := [name for name in only if name not in names]:
        raise CourseError(f"no row {unknown[0]!r} in these workloads: there is {', '.join(names)}")
    return [row for row in rows if not only or row.name in only]


def _check_lengths(setup: Setup) -> None:
    """Raises `CourseError` if a row has a request that is longer than the limit of the job."""
    longest = max(setup.rows, key=lambda row: row.longest)
    if longest.longest > setup.job.max_model_len:
        raise CourseError(
            f"row {longest.name!r} has a request of {longest.longest} tokens, the limit is "
            f"{setup.job.max_model_len}: take a shorter trace"
        )
