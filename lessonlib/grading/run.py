"""The whole of grading a class: read, check what is not done yet, write each record as it comes, then the tables."""

from __future__ import annotations

import json
import secrets
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from lessonlib import __version__
from lessonlib.checks import EXERCISES
from lessonlib.checks.confine import BUBBLEWRAP, Level, best_level
from lessonlib.checks.report import CAN_BE_READ
from lessonlib.checks.runner import could_not, select
from lessonlib.errors import CourseError
from lessonlib.files import write_whole
from lessonlib.grading import submissions, tables
from lessonlib.grading.archives import describe
from lessonlib.grading.cluster import Pool, connect
from lessonlib.grading.job import Job, needs_more_than_python, student_seed
from lessonlib.grading.pages import class_page
from lessonlib.grading.progress import Progress
from lessonlib.grading.reader import Reader
from lessonlib.grading.records import STUDENTS, Record, make_record, read_record, write_record
from lessonlib.grading.submissions import Handin, Submission

SECRET_BITS = 128
POLL = 0.05  # seconds between two looks at the workers
RUN_FILE = "run.json"  # what the results in a folder were made with


@dataclass(frozen=True)
class Settings:
    """What all of a class is graded by, and what stays the same when a run goes on.

    Attributes:
        tasks: ids of exercises or tasks; none for everything there is.
        seed: the class's secret, from which each student's inputs are drawn; a fresh one unless given.
        weights: a TOML file, task id = points; 1 for each task that is not in it.
        assignment: its name in the tables.
    """

    tasks: tuple[str, ...] = ()
    seed: int | None = None
    weights: Path | None = None
    assignment: str = "continuous-batching"


@dataclass(frozen=True)
class Grades:
    """What became of a class: a record for each student who was graded, and who was not, in order of name."""

    records: tuple[Record, ...]
    not_graded: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether everyone was graded and nobody's submission was beyond reading."""
        return not self.not_graded and not any(record["problem"] for record in self.records)

    @property
    def summary(self) -> str:
        """How many, what was not handed in, and how well they were shut in while they were checked."""
        problems = sum(bool(record["problem"]) for record in self.records)
        said = [f"{len(self.records)} graded"]
        said += [f"{problems} of them could not be read"] if problems else []
        said += (
            [f"{len(self.not_graded)} not graded: {', '.join(self.not_graded)}"] if self.not_graded else []
        )
        missing = tables.not_there(tables.obstacles_of(self.records))
        absent = [f"{file} by {many}" for file, many in sorted(missing.items())]
        levels = {
            str(Level(level["name"], tuple(level["not_contained"])))
            for record in self.records
            for level in record["sandbox"]
        }
        lines = [", ".join(said), *([f"not handed in: {', '.join(absent)}"] if absent else [])]
        return "\n".join([*lines, *sorted(levels)])


def grade(
    folder: str | Path,
    out: str | Path,
    settings: Settings | None = None,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    roster: str | Path | None = None,
    say: Callable[[str], None] = print,
) -> Grades:
    """Grade a class.

    Args:
        folder: holds a folder or a zip for each student.
        out: where the results go: a new folder, or with `resume` the one of an earlier run.
        settings: what is graded, and by what.
        workers: processes of this machine; one a core unless given.
        scheduler: the address of a Dask scheduler to use instead.
        resume: leave the students alone who are in `out` with the same files.
        roster: a gradebook exported from Canvas, for the columns that only Canvas knows.
        say: gets each line for the person who grades.

    Raises `CourseError` where nothing can be done: before anything is graded, or where `out` can be written no more.
    """
    folder, out, settings = Path(folder), Path(out), settings or Settings()
    known = tables.read_roster(Path(roster)) if roster else {}
    handins, left_out = submissions.find(folder)
    run = _settle(out, settings, resume)
    for line in left_out:
        say(f"left out: {line}")
    with _Grading(folder, out, run, workers, scheduler, say) as grading:
        records = grading.grade(handins)
    _write_tables(out, records, settings.assignment, known)
    graded = {record["student"] for record in records}
    missing = tuple(handin.student for handin in handins if handin.student not in graded)
    return Grades(tuple(records), missing)


# ----- what an earlier run was made with -----


def _settle(out: Path, settings: Settings, resume: bool) -> dict[str, Any]:
    """{"course", "tasks", "weights", "seed"} of this run: those of the one that it goes on with, if it does."""
    before = _read_run(out)
    if before and not resume:
        raise CourseError(f"{out} holds results: go on with --resume, or choose another --out")
    given: dict[str, Any] = {
        "course": __version__,
        "tasks": [task.id for tasks in select(settings.tasks).values() for task in tasks],
        "weights": _weights(settings.weights),
    }
    if not before:
        return {**given, "seed": secrets.randbits(SECRET_BITS) if settings.seed is None else settings.seed}
    if settings.seed is not None:
        given["seed"] = settings.seed
    for name, value in given.items():
        if before[name] != value:
            raise CourseError(
                f"{out} was begun with {name} {_short(before[name])}, not {_short(value)}: "
                "say the same, or choose another --out"
            )
    return before


def _make_folder(out: Path, fixed: Mapping[str, Any]) -> None:
    """The folder with what the run is made with. Raises `CourseError` where it cannot be."""
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)  # grades are nobody else's business
        (out / STUDENTS).mkdir(exist_ok=True)
    except OSError as error:
        raise CourseError(f"cannot write to {out}: {error.strerror}; choose another --out") from error
    write_whole(out / RUN_FILE, json.dumps(fixed, indent=1) + "\n")


def _read_run(out: Path) -> dict[str, Any]:
    """What an earlier run was made with, or {} where there was none."""
    path = out / RUN_FILE
    if not path.is_file():
        return {}
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        return {name: before[name] for name in ("course", "tasks", "weights", "seed")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CourseError(f"cannot read {path} ({error}): choose another --out") from error


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _weights(path: Path | None) -> dict[str, float]:
    """Task id → points, for every task there is.

    Raises `CourseError` for a file that is not TOML, an unknown task, or points that are no number from 0 up.
    """
    weights = {task.id: 1.0 for exercise in EXERCISES.values() for task in exercise.tasks}
    if path is None:
        return weights
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CourseError(
            f'cannot read the weights {path}: {error}; write lines such as "ex03.1" = 2'
        ) from error
    for name, value in given.items():
        if name not in weights:
            raise CourseError(f"{path} has no task's id {name!r}: there is {', '.join(weights)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
            raise CourseError(f"{path} gives {name} {value!r} points: give a number from 0 up")
        weights[name] = float(value)
    return weights


def _record_of(out: Path, submission: Submission) -> Record | None:
    """What is stored of just these files, or None."""
    record = read_record(out, submission.student)
    same = record is not None and record["digest"] == submission.digest and record["course"] == __version__
    return record if same else None


# ----- checking -----


class _Grading:
    """One run: reads each submission, sends it to the workers, writes each record as it comes.

    Use as a context manager, so that no process is left.
    """

    def __init__(
        self,
        folder: Path,
        out: Path,
        run: Mapping[str, Any],
        workers: int | None,
        scheduler: str | None,
        say: Callable[[str], None],
    ) -> None:
        self._out, self._run, self._say = out, run, say
        self._workers, self._scheduler = workers, scheduler
        self._wanted = list(select(run["tasks"]))
        self._stack = ExitStack()
        self._reader = self._stack.enter_context(Reader(folder, self._wanted))
        self._pool: Pool | None = None
        self._checked: dict[str, _Checked] = {}  # student → what is known so far
        self._records: dict[str, Record] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def grade(self, handins: Sequence[Handin]) -> list[Record]:
        """The record of each student, in order of name; those whose worker was lost have none."""
        if any(read_record(self._out, handin.student) is None for handin in handins):
            self._connect()  # before anything is written: a scheduler that is not there changes nothing
        with Progress(len(handins), 0, self._say) as progress:
            for handin in handins:
                self._begin(self._reader.read(handin), progress)
                self._collect(progress)
            while self._pool is not None and not self._pool.is_idle:
                self._collect(progress)
                time.sleep(POLL)
        return [self._records[student] for student in sorted(self._records)]

    def _connect(self) -> Pool:
        if self._pool is None:
            wants_gpu = any(map(needs_more_than_python, self._wanted))
            if self._scheduler is None and (level := best_level()) != BUBBLEWRAP:
                self._say(f"{level}; to contain more, install bubblewrap")
            client = self._stack.enter_context(connect(self._workers, self._scheduler, wants_gpu))
            _make_folder(self._out, self._run)
            self._pool = Pool(client)
        return self._pool

    def _begin(self, submission: Submission, progress: Progress) -> None:
        """Have a submission checked, unless there is a record of just these files."""
        if (record := _record_of(self._out, submission)) is not None:
            self._records[submission.student] = record
            progress.one_more()
            return
        pool = self._connect()
        jobs = [] if submission.problem else self._jobs(submission)
        self._checked[submission.student] = _Checked(submission, len(jobs))
        for job in jobs:
            pool.submit(job)
        if not jobs:
            self._finish(submission.student, progress)

    def _jobs(self, submission: Submission) -> list[Job]:
        """The submission in up to two parts: what plain Python checks, and what a GPU may be wanted for."""
        jobs = []
        for kind in (False, True):
            names = [name for name in self._wanted if needs_more_than_python(name) == kind]
            tasks = tuple(task.id for name in names for task in select(self._run["tasks"])[name])
            if tasks:
                files = {name: submission.files[name] for name in names if name in submission.files}
                seed, unreadable = student_seed(self._run["seed"], submission.student), submission.unreadable
                jobs.append(Job(submission.student, tasks, files, seed, unreadable))
        return jobs

    def _collect(self, progress: Progress) -> None:
        """Take what the workers have done by now."""
        for job, answer in self._pool.finished() if self._pool else ():
            checked = self._checked.get(job.student)
            if checked is None:  # another part of it was lost before
                continue
            if answer is None:
                del self._checked[job.student]
                progress.say(f"{job.student}: not graded, since the worker was lost: run again with --resume")
                continue
            checked.answers.append(answer)
            if len(checked.answers) == checked.parts:
                self._finish(job.student, progress)

    def _finish(self, student: str, progress: Progress) -> None:
        """Write a student's record, as soon as the last part of it is there."""
        checked = self._checked.pop(student)
        submission, answers = checked.submission, checked.answers
        try:
            record = self._write(submission, answers or [self._nothing(submission)])
        except CourseError:  # where one cannot be written, none can
            raise
        except Exception as error:  # whatever it was, the next student is still graded
            problem = f"The checker failed on what came back: {describe(error)}. Tell whoever runs it."
            submission = replace(submission, problem=problem)
            record = self._write(submission, [self._nothing(submission)])
        self._records[student] = record
        for line in _to_say(record):
            progress.say(f"{student}: {line}")
        progress.one_more()

    def _write(self, submission: Submission, answers: Sequence[Mapping[str, Any]]) -> Record:
        return write_record(self._out, make_record(submission, answers, self._run["weights"], __version__))

    def _nothing(self, submission: Submission) -> dict[str, Any]:
        """What `job.run` would give for a submission of which nothing can be graded."""
        seed = student_seed(self._run["seed"], submission.student)
        results = [
            result.to_dict()
            for tasks in select(self._run["tasks"]).values()
            for result in could_not(tasks, submission.problem, seed, CAN_BE_READ)
        ]
        return {"results": results, "sandbox": []}


@dataclass
class _Checked:
    """A submission on its way: the number of its parts, and what came of those that are done."""

    submission: Submission
    parts: int
    answers: list[dict[str, Any]] = field(default_factory=list)


def _to_say(record: Record) -> list[str]:
    """What whoever grades is told at once. Files that are not there are counted at the end."""
    return [*tables.sentences(tables.obstacles(record)), *record["notes"]]


# ----- the class -----


def _write_tables(out: Path, records: Sequence[Record], assignment: str, roster: Mapping[str, Any]) -> None:
    mistakes = tables.commonest_mistakes(records)
    picture = tables.histogram(records)
    found = tables.obstacles_of(records)
    write_whole(out / "grades_nbgrader.csv", tables.nbgrader_csv(records, assignment))
    write_whole(out / "grades_canvas.csv", tables.canvas_csv(records, assignment, roster))
    write_whole(out / "mistakes.csv", tables.mistakes_csv(mistakes))
    write_whole(out / "obstacles.csv", tables.obstacles_csv(found))
    write_whole(out / "histogram.png", picture.png())
    write_whole(out / "index.html", class_page(records, mistakes, found, picture))
