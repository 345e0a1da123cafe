"""Install the course's wheel where nothing of the clone is, and do there what a student does.

Builds the wheel, puts it into a new environment, starts a folder, checks exercises, and starts the processes in which
engines are compared. Then Triton is removed, as on macOS, and every notebook that needs neither kernels nor vLLM runs
word for word. Exit status 1 where something does not hold.

.venv/bin/python install/wheel_check.py
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "install" / "locks" / "python.txt"
# Not 04, which is made of kernels, and not 06, which needs vLLM. The longest come first.
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0[0135]_*.ipynb"), reverse=True)
ALONE = next((ROOT / "notebooks").glob("02_*.ipynb"))  # it races two schedules by the clock
TWO_AT_A_TIME = ("--numprocesses", "2", "--dist", "loadfile", "--no-loadscope-reorder")
STRICTLY = ("--nbval", "--nbval-current-env", "--nbval-cell-timeout=600", "-p", "lessonlib.nbval_kernel")
# Of this process, and not a student's.
FORGOTTEN = ("PYTHONPATH", "VIRTUAL_ENV", "LESSONLIB_WITHOUT_SOLUTIONS")

WHERE = """\
import lessonlib, kernels, pathlib, sys
for package in (lessonlib, kernels):
    assert pathlib.Path(package.__file__).is_relative_to(sys.prefix), package.__file__
"""
CONTENDERS = """\
import os
from lessonlib import recorded
from lessonlib.contenders import import_line
from lessonlib.contenders.job import Job, Row
from lessonlib.contenders.process import ContenderProcess
from lessonlib.engine.checkpoint import resolve

assert import_line.output(import_line.SCRIPT) == recorded.load(import_line.RECORDED)["words"]
job = Job(str(resolve("smollm2")), "float32", "cpu", 2, 64, 1, sorted(os.sched_getaffinity(0))[:1],
          [Row("row", [[1, 2, 3], [4, 5]], [4, 3])], kv_gib=1, is_timed=False)
answers = []
for name in ("hf", "course"):
    process = ContenderProcess(name, job)
    try:
        process.introduce(300)
        answers.append(process.run("row", 300)["tokens"])
    finally:
        process.close()
assert answers[0] == answers[1], answers
"""


class Failed(Exception):  # noqa: N818 - a finding
    """A step did not do what it should."""


class Student:
    """Somebody with the wheel and a folder, and nothing of the clone."""

    def __init__(self, home: Path) -> None:
        self.home, self.tools = home, home / "environment" / "bin"
        self.course = home / "course"
        kept = {name: value for name, value in os.environ.items() if name not in FORGOTTEN}
        self.variables = {**kept, "PATH": os.pathsep.join([str(self.tools), os.environ.get("PATH", "")])}

    def do(
        self, what: str, command: Sequence[str | Path], folder: Path, status: int = 0, expected: str = ""
    ) -> None:
        """Run a command. Raises `Failed` where it ends with another status or does not print `expected`."""
        started = time.monotonic()
        print(f"{what} …", flush=True)
        done = subprocess.run(
            [str(word) for word in command],
            cwd=folder,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != status or expected not in done.stdout:
            typed = shlex.join(str(word) for word in command)
            wanted = f"status {status}" + (f" and {expected!r}" if expected else "")
            raise Failed(
                f"{what}: {typed} ended with {done.returncode}, not {wanted}:\n{done.stdout[-6000:]}"
            )
        print(f"  {time.monotonic() - started:.0f} s", flush=True)


def build(out: Path) -> Path:
    """The wheel, as the README says to make it."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(out),
        str(ROOT),
    ]
    subprocess.run(command, check=True)
    (wheel,) = out.glob("*.whl")
    return wheel


def install(student: Student, wheel: Path) -> None:
    student.do("a new environment", [sys.executable, "-m", "venv", student.tools.parent], student.home)
    pip = [student.tools / "python", "-m", "pip", "install", "--quiet", "--constraint", LOCK]
    tools = ["nbval", "pytest", "pytest-xdist"]
    student.do("the wheel, nbval and what they need", [*pip, wheel, *tools], student.home)
    student.do("nothing comes from the clone", [student.tools / "python", "-c", WHERE], student.home)


def walk(student: Student) -> None:
    """What a student does."""
    lesson, python, course = student.tools / "lesson", student.tools / "python", student.course
    student.do("lesson start", [lesson, "start", course], student.home, expected="7 notebooks, 8 exercises")
    student.do("lesson start, again", [lesson, "start"], course / "notebooks", expected="nothing is new")
    student.do(
        "an exercise that is not written", [lesson, "check", "ex01"], course, status=1, expected="ex01.1"
    )
    answered = [lesson, "check", "ex01", "--from", "solutions"]
    student.do("one that is", answered, course / "notebooks", expected="3 of 3 passed")
    student.do("a worked answer", [lesson, "hint", "ex01.3", "--solution"], course, expected="def drain(")
    elsewhere = [lesson, "check", "ex01"]
    student.do("outside the folder", elsewhere, student.home, status=2, expected="`lesson start` makes")
    student.do("engines in processes of their own", [python, "-c", CONTENDERS], course)
    without_triton = [python, "-m", "pip", "uninstall", "--quiet", "--yes", "triton"]
    student.do("Triton is removed", without_triton, student.home)
    nbval = [python, "-m", "pytest", *STRICTLY, "-p", "no:cacheprovider"]
    names = [path.name for path in NOTEBOOKS]
    student.do(f"word for word: {', '.join(names)}", [*nbval, *TWO_AT_A_TIME, *names], course / "notebooks")
    student.do(f"word for word: {ALONE.name}", [*nbval, ALONE.name], course / "notebooks")


def main() -> int:
    """Exit status 0 where all of it holds."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wheel-") as folder:
        student = Student(Path(folder))
        try:
            wheel = build(Path(folder, "dist"))
            print(f"{wheel.name}: {wheel.stat().st_size / 2**20:.1f} MiB", flush=True)
            install(student, wheel)
            walk(student)
        except (Failed, subprocess.CalledProcessError) as error:
            print(f"wheel: {error}", file=sys.stderr)
            return 1
    print(f"wheel: all of it holds, {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
