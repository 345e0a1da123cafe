"""`lesson compare`: contenders take turns on the same rows of work, and every run is recorded when it ends.

What is kept equal, and how, is in docs/fairness.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from kernels.machine import commit
from lessonlib.contenders.agreement import check_identity, compare_answers
from lessonlib.contenders.options import Options, contenders_for
from lessonlib.contenders.session import Session
from lessonlib.contenders.setup import prepare
from lessonlib.contenders.tracing import trace_vllm
from lessonlib.contenders.turns import time_all
from lessonlib.files import check_place
from lessonlib.result import Comparison

__all__ = ["Options", "compare", "contenders_for"]


def compare(options: Options, log: Callable[[str], None]) -> Comparison:
    """Set up, check that contenders agree, time them in turns, and record vLLM's scheduler.

    A contender that cannot run is in `Comparison.failures`, and the others go on. An interruption leaves `is_whole`
    False and keeps what was measured, in the file too if there is one.

    Args:
        options: what to compare.
        log: called with a line of text for each thing that happens.

    Raises:
        CourseError: if nothing can be run.
    """
    comparison = Comparison(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=options.command,
        commit=commit(),
        preset=options.preset.name,
        model="",
    )
    session = Session(options, comparison, log)
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        if options.out:
            check_place(options.out)  # better now than after the runs
        try:
            setup = prepare(session, Path(folder))
            check_identity(session, setup)
            time_all(session, setup)
            compare_answers(session, setup)
            trace_vllm(session, setup)
            comparison.is_whole = True
        except KeyboardInterrupt:
            log("interrupted: what was measured is kept")
        session.save()
    return comparison
