"""One contender's process: ``python -m lessonlib.contenders.child NAME JOB.json``.

It loads the model, answers with a line of JSON (versions, settings), then runs a row for each name that it reads
from standard input, one a line, and answers with a line of JSON each. Whatever engines print goes to standard
error. It ends when standard input does.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from importlib import metadata
from typing import Any, Protocol, TextIO

from lessonlib.contenders.job import Job, OutOfMemory, Ride, Row
from lessonlib.errors import CourseError

MODULES = {
    "hf": "lessonlib.contenders.hf",
    "hf-dynamic": "lessonlib.contenders.hf",
    "hf-cb": "lessonlib.contenders.hf_cb",
    "course-static": "lessonlib.contenders.course",
    "course-continuous": "lessonlib.contenders.course",
    "course-paged": "lessonlib.contenders.course",
    "course-mixed": "lessonlib.contenders.course",
    "course": "lessonlib.contenders.course",
    "mine": "lessonlib.contenders.course",
    "vllm": "lessonlib.contenders.vllm_engine",
    "machine": "lessonlib.contenders.machine",
}


class Contender(Protocol):
    """An engine with its model loaded. `make(name, job)` of each module in `MODULES` gives one.

    Attributes:
        settings: what a reader must know of how it was run, ready for JSON.
        packages: whose versions are reported.
    """

    settings: dict[str, Any]
    packages: tuple[str, ...]

    def run(self, row: Row) -> Ride:
        """Run a row once, from its prompts to its last token."""


def main() -> None:
    name, path = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the engine prints is not an answer
    job = Job.load(path)
    bind(job)
    contender = _answered(
        answers, lambda: importlib.import_module(MODULES[name]).make(name, job), _introduction
    )
    if contender is None:
        return
    for line in sys.stdin:
        _answered(answers, partial(contender.run, job.row(line.strip())), asdict)
    # An engine's own farewell can take long, hang or complain; nothing of it is wanted.
    answers.flush()
    os._exit(0)


def bind(job: Job) -> None:
    """Keep this process to the cores and threads that every contender has."""
    if job.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job.cores)
    if job.device == "cpu" and job.threads:
        import torch

        torch.set_num_threads(job.threads)


def _answered(answers: TextIO, call: Callable[[], Any], shape: Callable[[Any], dict]) -> Any:
    """Call, write the outcome as a line of JSON, and return it; None where it failed."""
    started = time.perf_counter()
    outcome = None
    try:
        outcome = call()
        answer = {**shape(outcome), "peak_bytes": peak_bytes(), "took": time.perf_counter() - started}
    except CourseError as error:
        answer = {"error": str(error), "kind": "input"}
    except OutOfMemory as error:
        answer = {"error": str(error), "kind": "memory"}
    except Exception as error:
        traceback.print_exc()
        answer = {"error": _one_line(error), "kind": "memory" if is_out_of_memory(error) else "failed"}
    print(json.dumps(answer), file=answers, flush=True)
    return outcome


def _introduction(contender: Contender) -> dict[str, Any]:
    return {"settings": contender.settings, "versions": versions(contender.packages)}


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Python's version, and those of the packages that are there."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def peak_bytes() -> dict[str, int]:
    """The most memory that this process has held: on the host, and on the card where there is one in use."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    peaks = {"host": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        peaks["gpu"] = torch.cuda.max_memory_reserved()
    return peaks


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the card or on the host."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _one_line(error: BaseException) -> str:
    words = " ".join(str(error).split()) or "no words"
    return f"{type(error).__name__}: {words[:600]}"


if __name__ == "__main__":
    main()
