"""vLLM's Trace and latencies, from a process of its own: in timed runs its scheduler is left as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from lessonlib.contenders.job import Row
from lessonlib.contenders.process import ContenderError, ContenderProcess
from lessonlib.contenders.session import Session
from lessonlib.contenders.setup import Setup
from lessonlib.result import Latencies
from lessonlib.trace import Trace

VLLM = "vllm"
TRACED_KINDS = ("mixed", "split", "trace", "online")  # of rows


def trace_vllm(session: Session, setup: Setup) -> None:
    """Run the rows that vLLM has finished once more with its scheduler recorded."""
    options = session.options
    if VLLM not in session.names or not (options.is_timed and options.traces_vllm):
        return
    rows = [row for row in setup.rows if row.kind in TRACED_KINDS and _is_measured(session, row)]
    for job, group in groupby(rows, setup.job_for):
        of_one_job = list(group)
        session.log(f"{VLLM}: once more, to record its scheduler")
        with session.all_started([VLLM], replace(job, rows=of_one_job, is_traced=True)) as processes:
            for process in processes.values():
                _trace_rows(session, process, of_one_job)


def _is_measured(session: Session, row: Row) -> bool:
    result = session.comparison.of(VLLM, row.name)
    return result is not None and bool(result.repetitions)


def _trace_rows(session: Session, process: ContenderProcess, rows: Sequence[Row]) -> None:
    """Each row once, after a run that warms up."""
    timeout = session.options.timeout
    try:
        process.run(rows[0].name, timeout)
        for row in rows:
            result = session.result(process.name, row)
            result.trace = Trace.from_dict(process.run(row.name, timeout)["trace"])
            if not result.latencies:
                source = "of an untimed run, by its scheduler's steps"
                result.latencies = Latencies.of(result.trace.token_times(), row.arrival_times, source)
            session.save()
    except ContenderError as error:
        session.log(f"{VLLM}'s scheduler could not be recorded: {error}")
