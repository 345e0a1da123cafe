"""One contender's process: ``python -m lessonlib.contenders.child NAME JOB.json``.

It loads the model and writes a line of JSON (versions, settings). Then it reads names of rows from standard input, one
a line, runs each and writes a line of JSON. What engines print goes to standard error. It ends with standard input.

All that is imported here runs in the child. The parent's modules (`compare` and what it is made of) are not.
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
from typing import Any, TextIO

from lessonlib.contenders.engine import Engine
from lessonlib.contenders.job import Job, OutOfMemory
from lessonlib.contenders.registry import entry
from lessonlib.errors import CourseError


def main() -> None:
    name, path = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the engine prints must not be read as an answer
    job = Job.load(path)
    bind(job)
    contender = entry(name)
    engine = _answered(
        answers, lambda: importlib.import_module(contender.module).make(contender, job), _introduction
    )
    if engine is None:
        return
    for line in sys.stdin:
        _answered(answers, partial(engine.run, job.row(line.strip())), asdict)
    # Exit without the engine's own clean-up, which can take long, hang or fail.
    answers.flush()
    os._exit(0)


def bind(job: Job) -> None:
    """Bind this process to the cores and threads that every contender has."""
    if job.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job.cores)
    if job.device == "cpu" and job.threads:
        import torch

        torch.set_num_threads(job.threads)


def _answered(answers: TextIO, call: Callable[[], Any], shape: Callable[[Any], dict]) -> Any:
    """Call, write the outcome as a line of JSON, and return it; None if the call failed."""
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


def _introduction(engine: Engine) -> dict[str, Any]:
    return {"settings": engine.settings, "versions": versions(engine.packages)}


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Python's version, and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def peak_bytes() -> dict[str, int]:
    """The most bytes of memory that this process has held: on the host, and on the card if one is in use."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    peaks = {"host": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        peaks["gpu"] = torch.cuda.max_memory_reserved()
    return peaks


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, on the card or on the host."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text[:600]}"


if __name__ == "__main__":
    main()
