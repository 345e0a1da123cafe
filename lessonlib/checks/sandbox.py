"""The near side: a student's file in a child process, called over a pipe, one JSON line each way.

The child works in a scratch folder that holds a copy of the file. It sees the standard library and the
packages named here: no `lessonlib`, no `solutions/`, no settings of this process. What is contained for now
is time, memory and what it sends back; a file that sets out to do harm is not.
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
from lessonlib.errors import CourseError

LOAD_SECONDS = 20.0  # starting Python and running the file's top level
KEPT_VARIABLES = ("LD_LIBRARY_PATH", "SYSTEMROOT")  # without which some Pythons do not start


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
    """

    answer: Any = None
    raised: Raised | None = None
    changed: dict[int, Any] = field(default_factory=dict)
    functions: tuple[str, ...] = ()
    printed: str = ""
    ended: str = ""


class Child:
    """One warm process for one student's file. Use as a context manager, so that nothing is left running."""

    def __init__(self, path: Path, packages: Sequence[str] = ()) -> None:
        self.name, self.packages = path.name, tuple(packages)
        self._scratch = tempfile.TemporaryDirectory(prefix="check-", ignore_cleanup_errors=True)
        self._root = Path(self._scratch.name)
        self._work = self._root / "work"
        self._work.mkdir()
        shutil.copyfile(path, self._work / self.name)
        shutil.copyfile(child.__file__, self._root / "child.py")
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
        self.loaded = self._ask({"load": self.packages}, LOAD_SECONDS)
        return self.loaded

    def call(self, function: str, arguments: Sequence[Any], seconds: float) -> Reply:
        """Call one of the file's functions. After a reply with `ended`, the process is gone: `load` again."""
        encoded = [child.encode(argument) for argument in arguments]
        return self._ask({"function": function, "arguments": encoded}, seconds)

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
        environment |= {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        program = [sys.executable, "-I", "-S", "-B", "-X", "utf8", str(self._root / "child.py")]
        try:
            self._process = subprocess.Popen(
                [*program, str(requests_read), str(answers_write), str(self._root / "site"), self.name],
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
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise CourseError(f"no package {package} here: install the course's requirements")
        real = Path(spec.submodule_search_locations[0])
        for folder in (real, real.with_name(f"{package}.libs")):  # wheels keep their C libraries beside them
            if folder.is_dir():
                (site / folder.name).symlink_to(folder)


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
    )
