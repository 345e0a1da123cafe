"""The near side: a student's file in a child process, called over a pipe, one JSON line each way.

The child works in a scratch folder that holds a copy of the file. It sees the standard library, the packages
named here and a harness where the exercise has one: no `lessonlib`, no `solutions/`, no settings of this
process. How high the walls around it are, `confine` says. What comes back is taken for a stranger's: read as
JSON, sizes and types looked at, nothing of it run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from lessonlib.checks.sandbox import child
from lessonlib.checks.sandbox.cleaning import clean_lines
from lessonlib.checks.sandbox.confine import Cell, Level, best_level, interpreter, kept_variables
from lessonlib.checks.spec import GPU, INTERPRETER, PYTHON, Exercise
from lessonlib.errors import CourseError

POLL = 0.1  # seconds between two looks at a process that has not answered yet
MOST_WAIT = 10  # times as long as it may take, an answer is waited for at the most, however busy the machine
START_SECONDS = 20.0  # starting Python and importing what the exercise may use
LOAD_SECONDS = 5.0  # running the file's top level
# By the kernel, so that they hold even where nobody is left to look. Beside them: bytes, below, and processes.
LIMITS = {"CPU": 120, "CORE": 0, "NOFILE": 1024}
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
# process can write to is counted. A file is also what CUDA's processes share memory in.
BYTES = {
    PYTHON: {"AS": 4 << 30, "FSIZE": 16 << 20},
    INTERPRETER: {"DATA": 4 << 30, "FSIZE": 16 << 20},
    GPU: {"DATA": 32 << 30, "FSIZE": 1 << 30},
}
# Bytes of main memory that all processes of a submission may take together, by tier.
TOGETHER = {PYTHON: 6 << 30, INTERPRETER: 6 << 30, GPU: 40 << 30}
# NumPy's names of what `child.encode` lets through: truth values, whole numbers, floats.
DTYPES = {"bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
DTYPES |= {f"float{bits}" for bits in (16, 32, 64)}
LARGEST = 1 << 64
OURS = ("kernels", "lessonlib")  # the course's own packages
MAX_WANTED = 50  # functions of one exercise


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
        changed: index of an argument → what it became, for those that the call changed.
        functions: after `load`, the functions that the file has: those of the exercise, then others of its own.
        printed: how its printing begins.
        ended: "", or why there is nothing: "time", "large", "pipe" (it wrote where only the checker's own lines
            may come from), "memory" (of all its processes together), or what ended Python.
        calls: function of the file → how often the call called it, for those that were to be counted.
        lost: the exception leaves a process behind that is of no more use, as an error on a GPU does.
        limit: "", or which limit of the process the exception is the end of, one of `child.LIMITS`.
    """

    answer: Any = None
    raised: Raised | None = None
    changed: dict[int, Any] = field(default_factory=dict)
    functions: tuple[str, ...] = ()
    printed: str = ""
    ended: str = ""
    lost: bool = False
    limit: str = ""
    calls: dict[str, int] = field(default_factory=dict)


class _Clock:
    """How long a process took, and what is left of the seconds that it may take.

    It goes by the clock on the wall, but for the time in which the process could have run and was given no core:
    a machine that is busy with other things is no fault of the student's.
    """

    def __init__(self, seconds: float, program: int) -> None:
        self.took = 0.0
        self._seconds, self._program = seconds, program
        self._began = self._looked = time.monotonic()
        self._ran = _state_of(program)[1]

    @property
    def is_over(self) -> bool:
        if time.monotonic() - self._looked >= POLL:
            self.look()
        return self.took >= self._seconds or self._looked - self._began >= MOST_WAIT * self._seconds

    def look(self) -> None:
        """Count what has passed since the last time."""
        now = time.monotonic()
        (state, ran), passed = _state_of(self._program), now - self._looked
        # Where this process itself was given no core for a while, nobody knows what the other one did.
        waits = state == psutil.STATUS_RUNNING
        self.took += min(passed, ran - self._ran) if waits else min(passed, 2 * POLL)
        self._looked, self._ran = now, ran


def _state_of(program: int) -> tuple[str, float]:
    """(psutil's word for what a process does, seconds that it ran so far); ("", 0) for one that is not known."""
    try:
        process = psutil.Process(program or -1)
        with process.oneshot():
            ran = process.cpu_times()
            return process.status(), ran.user + ran.system
    except (psutil.Error, ValueError):
        return "", 0.0


class Child:
    """One warm process for one student's file. Use as a context manager, so that nothing is left running.

    Args:
        path: the student's file.
        exercise: says what the process can import and how long it may take.
        tier: what it runs on.
        level: how well it is shut in; the best that this machine can do unless given.
    """

    def __init__(
        self, path: Path, exercise: Exercise, tier: str = PYTHON, level: Level | None = None
    ) -> None:
        self.name, self.packages, self.tier = path.name, exercise.packages, tier
        self._wanted = [name for task in exercise.tasks for name in task.functions]
        self.level = level or best_level(tier == GPU)
        self.start_seconds = START_SECONDS * exercise.patience
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
        linked = _link_packages(self._root / "site", self.packages)
        self._cell = Cell(self.level, self._root, linked, needs_gpu=tier == GPU)
        self._requests = self._answers = -1
        self._pending = b""
        self._count = 0
        self._program = 0  # its process id, once it is known
        self.took = 0.0  # seconds that the last request took, but for waiting for a core
        self.running = False  # whether the file is loaded and waits for calls
        self.loaded: Reply | None = None  # what came of the last `load`

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._cell.close()
        self._scratch.cleanup()

    def load(self) -> Reply:
        """Start the process and run the file's top level. What could not be loaded once is not tried again."""
        if self.running or (self.loaded is not None and (self.loaded.ended or self.loaded.raised)):
            assert self.loaded is not None
            return self.loaded
        self._start()
        started = self._ask({"import": self.packages}, self.start_seconds)
        if started.ended:
            raise CourseError(
                f"no process for {self.name} ({self.level.name}: {started.ended}): "
                "look at `lesson doctor`, or free some memory"
            )
        self.loaded = self._ask({"load": True}, LOAD_SECONDS)
        return self.loaded

    def call(
        self,
        function: str,
        arguments: Sequence[Any],
        seconds: float,
        through: str = "",
        counted: Sequence[str] = (),
    ) -> Reply:
        """Call one of the file's functions, `through` a function of the harness where one is named.

        Calls of the functions in `counted` are counted meanwhile.

        After a reply with `ended`, `lost` or `limit`, the process is gone: `load` again.
        """
        encoded = [child.encode(argument) for argument in arguments]
        request = {
            "function": function,
            "arguments": encoded,
            "through": through,
            "counted": list(counted),
        }
        reply = self._ask(request, seconds, len(encoded))
        if reply.lost or reply.limit:
            self.stop()
        return reply

    def stop(self) -> None:
        """End the process and whatever it started."""
        if self._requests < 0:
            return
        self._cell.stop()
        os.close(self._requests)
        os.close(self._answers)
        self._requests = self._answers = -1
        self._pending, self.running, self._program = b"", False, 0

    def _start(self) -> None:
        requests_read, self._requests = os.pipe()
        self._answers, answers_write = os.pipe()
        os.set_blocking(self._requests, False)
        settings = {
            "name": self.name,
            "wanted": self._wanted,
            "harness": self._harness,
            "site": str(self._root / "site"),
            "limits": {**LIMITS, **_bytes(self.tier), "NPROC": self._cell.most_processes},
        }
        program = [interpreter(), "-I", "-S", "-B", "-X", "utf8", str(self._root / "child.py")]
        try:
            self._cell.start(
                [*program, str(requests_read), str(answers_write), json.dumps(settings)],
                self._environment(),
                (requests_read, answers_write),
            )
        finally:
            os.close(requests_read)
            os.close(answers_write)
        self.running = True

    def _environment(self) -> dict[str, str]:
        home = str(self._work)
        environment = {"PATH": os.defpath, "HOME": home, "TMPDIR": home, "USER": "student"}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        environment |= {"TRITON_INTERPRET": str(int(self.tier == INTERPRETER))}
        # Triton would look for its backends in the records of what is installed, which the child does not see.
        environment |= {"TRITON_BACKENDS_IN_TREE": "1"}
        if compiler := shutil.which("gcc") or shutil.which("clang"):  # for Triton, wherever it lies
            environment["CC"] = compiler
        return environment | kept_variables()

    def _ask(self, request: dict[str, Any], seconds: float, arguments: int = 0) -> Reply:
        """One line there, one line back. The process is stopped where none comes that can be read."""
        self._program = self._program or self._cell.program()
        clock = _Clock(seconds, self._program)
        self._count += 1
        try:
            self._write((json.dumps({**request, "id": self._count}) + "\n").encode(), clock)
            raw = self._read_line(clock)
            clock.look()
            return _reply(json.loads(raw), self._count, arguments)
        except TimeoutError:
            self.stop()
            return Reply(ended="time")
        except MemoryError:
            self.stop()
            return Reply(ended="memory")
        except (BrokenPipeError, EOFError):
            return self._ended()
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            self.stop()
            return Reply(ended="pipe")
        finally:
            self.took = clock.took

    def _write(self, line: bytes, clock: _Clock) -> None:
        """Raises `TimeoutError` where nobody reads, `BrokenPipeError` where nobody is there."""
        while line:
            if clock.is_over:
                raise TimeoutError
            if select.select([], [self._requests], [], POLL)[1]:
                with contextlib.suppress(BlockingIOError):
                    line = line[os.write(self._requests, line[: select.PIPE_BUF]) :]

    def _read_line(self, clock: _Clock) -> bytes:
        """The next line.

        Raises `EOFError` where the child is gone, `ValueError` where it says more than it may, `MemoryError` where
        its processes take more together than they may.
        """
        while b"\n" not in self._pending:
            if clock.is_over:
                raise TimeoutError
            if not select.select([self._answers], [], [], POLL)[0]:
                if self._cell.memory() > TOGETHER[self.tier]:
                    raise MemoryError
                continue
            chunk = os.read(self._answers, 1 << 16)
            if not chunk:
                raise EOFError
            if len(self._pending) > 2 * child.MAX_LINE:
                raise ValueError("an answer without an end")
            self._pending += chunk
        line, self._pending = self._pending.split(b"\n", 1)
        return line

    def _ended(self) -> Reply:
        """Python itself is gone: by which way out."""
        code = self._cell.wait(1.0) or 0
        self.stop()
        return Reply(ended=f"signal {_signal_name(-code)}" if code < 0 else f"exit code {code}")


def _bytes(tier: str) -> dict[str, int]:
    """The limits on bytes of a process of this tier. macOS refuses one on memory: it reserves far more than it uses."""
    return {name: most for name, most in BYTES[tier].items() if name == "FSIZE" or sys.platform == "linux"}


def _signal_name(number: int) -> str:
    """ "SIGSEGV"; of those without a name, the number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _link_packages(site: Path, packages: Sequence[str]) -> list[Path]:
    """A folder for `sys.path` with these packages and nothing of what is installed beside them.

    Those of the course are small, and copied: its folder may be closed to the user that the process runs as.
    Returns where the others really lie.
    """
    site.mkdir()
    linked = []
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise CourseError(f"no package {package} here: install the course's requirements")
        for name in (package, *COMPANIONS.get(package, ())):
            real = _place_of(name)
            if real is not None and name in OURS:
                shutil.copytree(real, site / real.name, ignore=shutil.ignore_patterns("__pycache__"))
                continue
            for path in (real, real.with_name(f"{name}.libs")) if real else ():  # C libraries of a wheel
                if path.exists():
                    (site / path.name).symlink_to(path)
                    linked.append(path)
    return linked


def _place_of(module: str) -> Path | None:
    """The folder or the file that `import module` would load."""
    spec = importlib.util.find_spec(module)
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    return Path(folders[0] if folders else str(spec.origin))


# ----- reading what a stranger says -----


def _reply(data: Any, count: int, arguments: int) -> Reply:
    """Raises `ValueError`, `TypeError` or `KeyError` for what the child's own program would not have written."""
    if not isinstance(data, dict) or data["id"] != count:
        raise ValueError("not the answer to this question")
    raised = data.get("raised")
    changed = {int(index): _value(value) for index, value in dict(data.get("changed", {})).items()}
    if not all(0 <= index < arguments for index in changed):
        raise ValueError("a change to what was not given")
    limit = data.get("limit", "")
    if limit not in ("", *child.LIMITS):
        raise ValueError("no limit of a process")
    functions = data.get("functions", ())
    if len(functions) > child.MAX_FUNCTIONS + MAX_WANTED:
        raise ValueError("too many functions")
    return Reply(
        answer=_value(data.get("answer")),
        raised=_raised(**raised) if raised else None,
        changed=changed,
        functions=tuple(_text(name, child.MAX_SOURCE) for name in functions),
        printed=_text(data["printed"], child.MAX_PRINTED),
        ended="large" if data.get("large") else "",
        lost=bool(data.get("lost")),
        limit=limit,
        calls={
            _text(name, child.MAX_SOURCE): int(times) for name, times in dict(data.get("calls", {})).items()
        },
    )


def _raised(type: str, text: str, line: int, function: str, source: str) -> Raised:
    return Raised(_text(type), _text(text), int(line), _text(function), _text(source, child.MAX_SOURCE))


def _text(value: Any, most: int = child.MAX_TEXT) -> str:
    """A text to show, cut; the child's own program has set its `…` already."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    return clean_lines(value[: most + 1])


def _value(data: Any) -> Any:
    """`child.decode`, for JSON that need not come from `child.encode`."""
    _look_at(data)
    return child.decode(data)


def _look_at(data: Any) -> None:
    """Raises where it cannot come from `child.encode`; what is to be shown as it is, is cleaned in it."""
    if isinstance(data, str):
        if len(data) > child.MAX_TEXT + 1:
            raise ValueError("a text that is too long")
    elif isinstance(data, dict):
        if "array" in data:
            if data["dtype"] not in DTYPES:
                raise ValueError("no dtype of numbers")
        elif "dict" in data:
            for pair in data["dict"]:
                for part in pair:
                    _look_at(part)
        elif "other" in data:
            data.update({name: _text(data[name]) for name in ("other", "text")})
        else:
            (items,) = data.values()
            for item in items:
                _look_at(item)
    elif isinstance(data, float | int) and not isinstance(data, bool) and math.isfinite(data):
        if abs(data) > LARGEST and isinstance(data, int):
            raise ValueError("a number with too many digits")
    elif isinstance(data, list):
        raise TypeError("a list without its name")
