"""A contender's process as its parent sees it: it is asked for runs by name, and its failures become exceptions."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import Any

from lessonlib import layout
from lessonlib.contenders.job import Job
from lessonlib.contenders.registry import Entry, entry
from lessonlib.errors import CourseError

LAST_LINES = 12  # of standard error, kept for an error's message
SPIN_COUNT = "10000"
VLLM_PYTHON = "LESSONLIB_VLLM_PYTHON"


class ContenderError(Exception):
    """The process ended, gave no answer in time, or could not do its work; the text says which."""


class NoMemoryError(ContenderError):
    """The process goes on, but the work did not fit in memory."""


class RefusedError(ContenderError):
    """The contender does not take this input: a version, or a model."""


class ContenderProcess:
    """Starts the process at once; `introduce` waits until its model is loaded.

    Args:
        name: of an entry in `registry`.
        job: the model, the limits and the rows it will be asked for.

    Raises:
        CourseError: for an unknown name, or if vLLM is not installed for a contender that needs it.
    """

    def __init__(self, name: str, job: Job) -> None:
        contender = entry(name)
        self.name = name
        self._folder = tempfile.TemporaryDirectory(prefix="contender-")
        folder = Path(self._folder.name)
        python = vllm_python() if contender.runs_under_vllm else sys.executable
        self._process = subprocess.Popen(
            [python, "-m", "lessonlib.contenders.child", name, str(job.save(folder / "job.json"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=folder,
            env=environment(contender, job, bridge_in(folder)),
            start_new_session=True,  # so that it can be ended together with its own children
        )
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._errors: deque[str] = deque(maxlen=LAST_LINES)
        self._readers = [
            threading.Thread(target=self._read_answers, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def introduce(self, timeout: float) -> dict[str, Any]:
        """Wait for the model: {"settings", "versions", "peak_bytes", "took" (seconds)}.

        Raises `ContenderError` if it fails, `RefusedError` if it does not take the input.
        """
        return self._answer(timeout)

    def run(self, row: str, timeout: float) -> dict[str, Any]:
        """One run of a row: a `job.Measurement` as a dictionary, and "peak_bytes".

        Args:
            row: its name.
            timeout: seconds after which the process is ended.

        Raises:
            ContenderError, NoMemoryError, RefusedError: if it fails.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(row + "\n")
            self._process.stdin.flush()
        except OSError:  # the process has ended: `_answer` says how
            pass
        return self._answer(timeout)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End the process and its children. Safe to call twice."""
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10 if self._answers.empty() else 0)
        self._kill()
        self._folder.cleanup()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _answer(self, timeout: float) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=timeout)
        except queue.Empty:
            self._kill()
            raise ContenderError(
                f"gave no answer for {timeout:,.0f} s and was ended; {self._last_lines()}"
            ) from None
        if line is None:
            self._answers.put(None)  # so that the next call fails too
            self._readers[1].join(5)
            code = self._process.wait()
            raise ContenderError(f"its process ended with status {code}; {self._last_lines()}")
        answer = json.loads(line)
        if "error" not in answer:
            return answer
        kind = {"input": RefusedError, "memory": NoMemoryError}.get(answer["kind"], ContenderError)
        raise kind(answer["error"])

    def _last_lines(self) -> str:
        return "its last lines: " + " | ".join(self._errors) if self._errors else "it printed nothing"

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if line.strip():
                self._errors.append(line.strip()[-200:])


def bridge_in(folder: Path) -> Path:
    """A new folder for another Python's path, with lessonlib in it and nothing of what lies beside that: other
    packages, and `kernels`, since transformers takes any package of that name for Hugging Face's.
    """
    bridge = folder / "path"
    bridge.mkdir()
    (bridge / "lessonlib").symlink_to(layout.PACKAGE, target_is_directory=True)
    return bridge


def environment(contender: Entry, job: Job, bridge: Path) -> dict[str, str]:
    """Environment variables: the same threads for all contenders, no network, and a path to lessonlib.

    Args:
        bridge: a folder with lessonlib alone. A contender that needs `kernels` gets the clone instead, or what is
            installed.
    """
    first = own_path() if contender.needs_kernels else [str(bridge)]
    others = [each for each in _python_path() if not _is_own(each)]
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*first, *others]),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if job.threads:
        variables["OMP_NUM_THREADS"] = str(job.threads)
        # lessonlib lets waiting threads sleep, which leaves the cores to other processes. With threads asleep between
        # two small operations, vLLM lost a third of its speed. Spinning this long, all contenders are as fast as with
        # OpenMP's own 300,000, and another busy process costs half as much.
        variables.setdefault("GOMP_SPINCOUNT", SPIN_COUNT if job.is_timed else "0")
    return variables


def own_path() -> list[str]:
    """What PYTHONPATH must hold for this Python to find lessonlib and kernels; nothing where they are installed."""
    is_needed = layout.clone() or any(map(_is_own, _python_path()))
    return [str(layout.PACKAGE.parent)] if is_needed else []


def _python_path() -> list[str]:
    return [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]


def _is_own(folder: str) -> bool:
    return Path(folder).resolve() == layout.PACKAGE.parent


def vllm_python() -> str:
    """The Python that has vLLM: the one that `LESSONLIB_VLLM_PYTHON` names, else that of `.venv-vllm` in the course's
    folder. Raises `CourseError` that says how to get one."""
    chosen = os.environ.get(VLLM_PYTHON)
    if not chosen:
        default = layout.home() / ".venv-vllm" / "bin" / "python"
        if default.is_file():
            return str(default)
        raise CourseError(
            f"vLLM is not set up here: {_how_to_get_vllm()}, or point {VLLM_PYTHON} at a Python that has it"
        )
    found = shutil.which(chosen)
    if not found:
        raise CourseError(
            f"{VLLM_PYTHON} is {chosen}, and there is no such program: point it at a Python with vLLM"
        )
    return str(Path(found).absolute())


def _how_to_get_vllm() -> str:
    if layout.clone():
        return "run `make vllm`"
    return "install it into an environment of its own, .venv-vllm in the course's folder"
