"""A contender's process, seen from outside: asked for runs by name, answered in lines, heard when it dies."""

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
from lessonlib.errors import CourseError

LAST_WORDS = 12  # lines
SPIN_COUNT = "10000"
VLLM_PYTHON = "LESSONLIB_VLLM_PYTHON"
WITHOUT_KERNELS = ("hf", "hf-dynamic", "hf-cb", "vllm")


class Died(Exception):  # noqa: N818 - it is what happened
    """The process ended, or gave no answer in time, or could not do what it was asked; the text says which."""


class NoMemory(Died):
    """It is still there, but the work did not fit into memory."""


class Refused(Died):
    """It does not take this input: a version, a model."""


class ContenderProcess:
    """Starts at once; `introduce` waits until its model is loaded.

    Args:
        name: one of `child.MODULES`.
        job: what it will be asked for.
    """

    def __init__(self, name: str, job: Job) -> None:
        self.name = name
        self._folder = tempfile.TemporaryDirectory(prefix="contender-")
        folder = Path(self._folder.name)
        python = vllm_python() if name == "vllm" else sys.executable
        self._process = subprocess.Popen(
            [python, "-m", "lessonlib.contenders.child", name, str(job.save(folder / "job.json"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=folder,
            env=environment(name, job, bridge_in(folder)),
            start_new_session=True,  # so that it can be ended with whatever it has started
        )
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._words: deque[str] = deque(maxlen=LAST_WORDS)
        self._readers = [
            threading.Thread(target=self._read_answers, daemon=True),
            threading.Thread(target=self._read_words, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def introduce(self, timeout: float) -> dict[str, Any]:
        """Wait for the model: {"settings", "versions", "peak_bytes", "took" (seconds)}.

        Raises `Died` where it does not come, `Refused` where it does not take the input.
        """
        return self._answer(timeout)

    def run(self, row: str, timeout: float) -> dict[str, Any]:
        """One run of a row: `job.Ride` as a dictionary. Raises `Died`, `NoMemory` or `Refused`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(row + "\n")
            self._process.stdin.flush()
        except OSError:  # it is gone: the answer says how
            pass
        return self._answer(timeout)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End it, and whatever it started. Safe to call twice."""
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
            raise Died(f"gave no answer for {timeout:,.0f} s and was ended; {self._last_words()}") from None
        if line is None:
            self._answers.put(None)  # whoever asks again is told again
            self._readers[1].join(5)
            code = self._process.wait()
            raise Died(f"its process ended with status {code}; {self._last_words()}")
        answer = json.loads(line)
        if "error" not in answer:
            return answer
        kind = {"input": Refused, "memory": NoMemory}.get(answer["kind"], Died)
        raise kind(answer["error"])

    def _last_words(self) -> str:
        return "its last words: " + " | ".join(self._words) if self._words else "it said nothing"

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def _read_words(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if line.strip():
                self._words.append(line.strip()[-200:])


def bridge_in(folder: Path) -> Path:
    """A new folder for another Python's path, with lessonlib in it and nothing of what lies beside that: other
    packages, and `kernels`, since transformers takes any package of that name for Hugging Face's.
    """
    bridge = folder / "path"
    bridge.mkdir()
    (bridge / "lessonlib").symlink_to(layout.PACKAGE, target_is_directory=True)
    return bridge


def environment(name: str, job: Job, bridge: Path) -> dict[str, str]:
    """The same threads for all, no network, and a path on which the child finds lessonlib.

    The course's own engine also needs `kernels`, so it gets the clone itself, or what is installed.
    """
    first = [str(bridge)] if name in WITHOUT_KERNELS else own_path()
    others = [each for each in _python_path() if not _is_own(each)]
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*first, *others]),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if job.threads:
        variables["OMP_NUM_THREADS"] = str(job.threads)
        # lessonlib lets waiting threads sleep, which is kind to neighbors. Asleep between two small operations, vLLM
        # lost a third of its speed. Spinning this long, all are as fast as with OpenMP's own 300,000, and a busy
        # neighbor costs half as much.
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
