"""The near side: a student's file in a child process, called over a pipe, one JSON line each way.

The child works in a scratch folder that holds a copy of the file. It sees the standard library, the packages
named here and a harness where the exercise has one: no `lessonlib`, no `solutions/`, no settings of this
process. What is contained for now is time, memory and what it sends back; a file that sets out to do harm is
not.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lessonlib.checks import child
from lessonlib.checks.spec import GPU, INTERPRETER, PYTHON, Exercise
from lessonlib.errors import CourseError

LOAD_SECONDS = 20.0  # starting Python and running the file's top level
# Without the first two some Pythons do not start; the others say which card and which compiler to use.
KEPT_VARIABLES = ("LD_LIBRARY_PATH", "SYSTEMROOT", "CUDA_VISIBLE_DEVICES", "TRITON_LIBCUDA_PATH", "CC")
# What a package is installed with: each release starts without other ones of these.
COMPANIONS = {
    "torch": (
        "torchgen",
        "functorch",
        "nvidia",
        "typing_extensions",
        "filelock",
        "fsspec",
        "jinja2",
        "markupsafe",
        "mpmath",
        "networkx",
        "sympy",
    )
}
# Bytes, by tier. Large libraries and CUDA reserve far more address space than they use, so there only what a
# process can write to is counted.
MEMORY = {PYTHON: ("AS", 4 << 30), INTERPRETER: ("DATA", 4 << 30), GPU: ("DATA", 32 << 30)}


@dataclass(frozen=True)
class Raised:
    """An exception of the student's code, and the line of their file that it came from (0: not known)."""

    type: str
    text: str
    line: int
    function: str
    source: str


@dataclass(frozen=True)
class Reply:
    """What came of one request.

    Attributes:
        answer: the value that came back.
        raised: the exception instead of it.
        changed: place of an argument → what it became, for those that the call changed.
        functions: after `load`, the functions that the file defines.
        printed: how its printing begins.
        ended: "", or why there is nothing: "time", "large", or what ended Python.
        lost: the exception leaves a process behind that is of no more use, as an error on a GPU does.
    """

    answer: Any = None
    raised: Raised | None = None
    changed: dict[int, Any] = field(default_factory=dict)
    functions: tuple[str, ...] = ()
    printed: str = ""
    ended: str = ""
    lost: bool = False


class Child:
    """One warm process for one student's file. Use as a context manager, so that nothing is left running.

    `exercise` says what the process can import and how long it may take, `tier` what it runs on.
    """

    def __init__(self, path: Path, exercise: Exercise, tier: str = PYTHON) -> None:
        self.name, self.packages, self.tier = path.name, exercise.packages, tier
        self.load_seconds = LOAD_SECONDS * exercise.patience
        self._harness = Path(next(iter(exercise.harness), "")).stem
        self._scratch = tempfile.TemporaryDirectory(prefix="check-", ignore_cleanup_errors=True)
        self._root = Path(self._scratch.name)
        self._work = self._root / "work"
        self._work.mkdir()
        shutil.copyfile(path, self._work / self.name)
        shutil.copyfile(child.__file__, self._root / "child.py")
        for name, source in exercise.harness.items():
            (self._root / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source, self._root / name)
        _link_packages(self._root / "site", self.packages)
        self._process: subprocess.Popen | None = None
        self._requests = self._answers = -1
        self._pending = b""
        self._count = 0
        self.loaded = Reply()  # what came of the last `load`

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._scratch.cleanup()

    @property
    def running(self) -> bool:
        """Whether the file is loaded and waits for calls."""
        return self._process is not None

    def load(self) -> Reply:
        """Start the process and run the file's top level."""
        self.stop()
        self._start()
        self.loaded = self._ask({"load": self.packages}, self.load_seconds)
        return self.loaded

    def call(self, function: str, arguments: Sequence[Any], seconds: float, through: str = "") -> Reply:
        """Call one of the file's functions, `through` a function of the harness where one is named.

        After a reply with `ended` or `lost`, the process is gone: `load` again.
        """
        encoded = [child.encode(argument) for argument in arguments]
        reply = self._ask({"function": function, "arguments": encoded, "through": through}, seconds)
        if reply.lost:
            self.stop()
        return reply

    def stop(self) -> None:
        """End the process and whatever it started in its session."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._requests)
        os.close(self._answers)
        self._process, self._pending = None, b""

    def _start(self) -> None:
        requests_read, self._requests = os.pipe()
        self._answers, answers_write = os.pipe()
        home = str(self._work)
        environment = {"PATH": os.defpath, "HOME": home, "TMPDIR": home, "OPENBLAS_NUM_THREADS": "1"}
        environment |= {"OMP_NUM_THREADS": "1", "TRITON_INTERPRET": str(int(self.tier == INTERPRETER))}
        # Triton would look for its backends in the records of what is installed, which the child does not see.
        environment |= {"TRITON_BACKENDS_IN_TREE": "1"}
        if compiler := shutil.which("gcc") or shutil.which("clang"):  # for Triton, wherever it lies
            environment["CC"] = compiler
        environment |= {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        program = [sys.executable, "-I", "-S", "-B", "-X", "utf8", str(self._root / "child.py")]
        kind, most = MEMORY[self.tier]
        pipes = [str(requests_read), str(answers_write)]
        try:
            self._process = subprocess.Popen(
                [*program, *pipes, str(self._root / "site"), self.name, self._harness, kind, str(most)],
                cwd=self._work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(requests_read, answers_write),
                start_new_session=True,
            )
        finally:
            os.close(requests_read)
            os.close(answers_write)

    def _ask(self, request: dict[str, Any], seconds: float) -> Reply:
        self._count += 1
        line = json.dumps({**request, "id": self._count}) + "\n"
        try:
            os.write(self._requests, line.encode())
        except BrokenPipeError:
            return self._ended()
        try:
            raw = self._read_line(time.monotonic() + seconds)
        except TimeoutError:
            self.stop()
            return Reply(ended="time")
        if raw is None:
            return self._ended()
        try:
            return _reply(json.loads(raw), self._count)
        except (ValueError, KeyError, TypeError):
            self.stop()
            return Reply(ended="it wrote to the checker's own pipe")

    def _read_line(self, deadline: float) -> bytes | None:
        """The next line; None where the child is gone or says more than it may."""
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._answers], [], [], left)[0]:
                raise TimeoutError
            chunk = os.read(self._answers, 1 << 16)
            if not chunk or len(self._pending) > 2 * child.MAX_LINE:
                return None
            self._pending += chunk
        line, self._pending = self._pending.split(b"\n", 1)
        return line

    def _ended(self) -> Reply:
        """Python itself is gone: by which way out."""
        assert self._process is not None
        try:
            code = self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            code = 0
        self.stop()
        return Reply(ended=f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")


def _link_packages(site: Path, packages: Sequence[str]) -> None:
    """A folder for `sys.path` with these packages and nothing of what is installed beside them."""
    site.mkdir()
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise CourseError(f"no package {package} here: install the course's requirements")
        for name in (package, *COMPANIONS.get(package, ())):
            real = _place_of(name)
            for path in (real, real.with_name(f"{name}.libs")) if real else ():  # C libraries of a wheel
                if path.exists():
                    (site / path.name).symlink_to(path)


def _place_of(module: str) -> Path | None:
    """The folder or the file that `import module` would load."""
    spec = importlib.util.find_spec(module)
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    return Path(folders[0] if folders else str(spec.origin))


def _reply(data: dict[str, Any], count: int) -> Reply:
    if data["id"] != count:
        raise ValueError("not the answer to this question")
    raised = data.get("raised")
    return Reply(
        answer=child.decode(data.get("answer")),
        raised=Raised(**raised) if raised else None,
        changed={int(place): child.decode(value) for place, value in data.get("changed", {}).items()},
        functions=tuple(data.get("functions", ())),
        printed=str(data["printed"])[: child.MAX_PRINTED],
        ended="large" if data.get("large") else "",
        lost=bool(data.get("lost")),
    )
