"""The timed runs: contenders take turns on the same rows, and every run is recorded when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from lessonlib.contenders.agreement import digest
from lessonlib.contenders.job import Job, Row
from lessonlib.contenders.process import ContenderProcess
from lessonlib.contenders.registry import entry
from lessonlib.contenders.session import Session
from lessonlib.contenders.setup import Setup
from lessonlib.contenders.sizes import kv_capacity
from lessonlib.result import Latencies, Repetition
from lessonlib.trace import Trace


def time_all(session: Session, setup: Setup) -> None:
    """Time every row with every contender, as many rounds as were asked for."""
    take = _take_turns if setup.preset.takes_turns else _one_after_another
    for job, rows in groupby(setup.rows, setup.job_for):
        take(session, setup, replace(job, rows=list(rows)))


def _take_turns(session: Session, setup: Setup, job: Job) -> None:
    """All processes at once, of which one works at a time; row by row."""
    with session.all_started(session.names, job) as processes:
        for row in job.rows:
            ready = [name for name in processes if _warm_up(session, processes[name], row)]
            for turn in range(session.options.rounds):
                for position, name in enumerate(rotated(ready, turn)):
                    _time(session, setup, processes[name], row, turn, position)


def _one_after_another(session: Session, setup: Setup, job: Job) -> None:
    """One process at a time, which times all rows in its turn."""
    for turn in range(session.options.rounds):
        for position, name in enumerate(rotated(session.names, turn)):
            with session.all_started([name], job) as processes:
                for process in processes.values():
                    for row in job.rows:
                        if _warm_up(session, process, row):
                            _time(session, setup, process, row, turn, position)


def _warm_up(session: Session, process: ContenderProcess, row: Row) -> bool:
    """Run the row once, whole. Returns False if this contender cannot run it."""
    if not entry(process.name).takes(row):
        return False
    if not session.options.is_timed:
        return True
    session.log(f"{process.name}: {row.name}, warming up")
    answer = session.run(process, row)
    if answer is None:
        return False
    session.result(process.name, row).settings.setdefault("warm_up_seconds", round(answer["seconds"], 3))
    return True


def _time(
    session: Session, setup: Setup, process: ContenderProcess, row: Row, turn: int, position: int
) -> None:
    """The timed runs of a row in one turn."""
    for _ in range(session.options.runs_a_turn):
        answer = session.run(process, row)
        if answer is not None:
            _record(session, setup, process.name, row, answer, turn, position)


def _record(
    session: Session, setup: Setup, name: str, row: Row, answer: dict[str, Any], turn: int, position: int
) -> None:
    """Add a timed run to the contender's result, and save."""
    result = session.result(name, row)
    latencies = Latencies.of(answer["token_times"], row.arrival_times, "of a timed run")
    repetition = Repetition(
        turn,
        position,
        answer["seconds"],
        row.useful_tokens,
        answer["raw_tokens"],
        latencies.percentile(99) if latencies else None,
        latencies.gaps.get("p99") if latencies else None,
    )
    result.repetitions.append(repetition)
    result.settings |= answer["settings"]
    result.settings["kv_bytes"] = kv_capacity(result.settings) * setup.kv_token_bytes
    result.peak_bytes = answer["peak_bytes"]
    result.digests = [digest(ids) for ids in answer["tokens"]]
    result.latencies = latencies or result.latencies
    if answer["trace"]:
        result.trace = Trace.from_dict(answer["trace"])
    session.log(f"{name}: {row.name}, {repetition.seconds:.2f} s, {repetition.rate:,.0f} tok/s")
    session.save()


def rotated(names: Sequence[str], turns: int) -> list[str]:
    """The same names, with `turns` of them moved from the front to the end."""
    cut = turns % len(names) if names else 0
    return [*names[cut:], *names[:cut]]
