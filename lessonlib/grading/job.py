"""One job: some exercises of one submission, checked on whatever machine it is sent to.

What travels there and back is plain values: bytes of files in, dicts of results out.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lessonlib import __version__
from lessonlib.checks import EXERCISES
from lessonlib.checks.report import FILE_CAN_BE_READ, IS_THERE, Result
from lessonlib.checks.runner import check_file, could_not, select
from lessonlib.checks.sandbox.cleaning import clean
from lessonlib.checks.sandbox.confine import Level
from lessonlib.checks.spec import PYTHON


@dataclass(frozen=True)
class Job:
    """Attributes:
    student: whose work it is.
    tasks: ids of exercises or tasks, all of one kind: of the python tier, or of a higher one.
    files: exercise id → its text.
    seed: draws the inputs, of this student alone.
    unreadable: exercise id → what is wrong with its file, where it has one that cannot be graded.
    """

    student: str
    tasks: tuple[str, ...]
    files: dict[str, bytes]
    seed: int
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def wants_gpu(self) -> bool:
        """Whether a GPU, where there is one, is to be this job's alone."""
        return needs_more_than_python(next(iter(select(self.tasks))))


def needs_more_than_python(exercise: str) -> bool:
    """Whether the exercise runs in a higher tier than plain Python."""
    return EXERCISES[exercise].tier != PYTHON


def student_seed(secret: int, student: str) -> int:
    """What draws a student's inputs: the same each time, other ones for everyone, and not to be guessed.

    Were they the same for a class, the cases that one student is shown would be a table of answers for the next.
    """
    return int.from_bytes(hashlib.sha256(f"{secret} {student}".encode()).digest()[:8])


def version() -> str:
    """The course's version where this runs."""
    return __version__


def run(job: Job) -> dict[str, Any]:
    """{"results": a dict for each result, "sandbox": how the files were shut in}. Never raises."""
    results: list[Result] = []
    levels: dict[str, Level] = {}
    for name in select(job.tasks):
        checked, level = _check(job, name)
        results += checked
        levels |= {level.name: level} if level else {}
    return {
        "results": [result.to_dict() for result in results],
        "sandbox": [asdict(level) for level in levels.values()],
    }


def _check(job: Job, name: str) -> tuple[list[Result], Level | None]:
    tasks = select(job.tasks)[name]
    if name in job.unreadable:
        return could_not(tasks, job.unreadable[name], job.seed, FILE_CAN_BE_READ), None
    if name not in job.files:
        return could_not(tasks, f"There is no {name}.py in the submission.", job.seed, IS_THERE), None
    try:
        with tempfile.TemporaryDirectory(prefix="grade-") as folder:
            path = Path(folder, f"{name}.py")
            path.write_bytes(job.files[name])
            return check_file(path, name, tasks, job.seed)
    except Exception as error:  # whatever it was, the next file and the next student are still graded
        sentence = f"The checker failed: {type(error).__name__}: {error}. Tell whoever runs it."
        return could_not(tasks, clean(sentence, 1_000), job.seed), None
