"""The whole of grading a class: read, check what is not done yet, write each record as it comes, then the tables."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from distributed import Client, as_completed

from lessonlib import __version__
from lessonlib.checks import EXERCISES
from lessonlib.checks.confine import BUBBLEWRAP, Level, best_level
from lessonlib.checks.report import CAN_BE_READ
from lessonlib.checks.runner import could_not, fresh_seed, select
from lessonlib.errors import CourseError
from lessonlib.files import write_whole
from lessonlib.grading import submissions, tables
from lessonlib.grading.cluster import connect, gpu_of_its_own
from lessonlib.grading.job import Job, needs_more_than_python, run
from lessonlib.grading.pages import class_page
from lessonlib.grading.progress import Progress
from lessonlib.grading.records import STUDENTS, Record, make_record, read_record, write_record
from lessonlib.grading.submissions import Submission

RUN_FILE = "run.json"  # what the results in a folder were made with


@dataclass(frozen=True)
class Settings:
    """What all of a class is graded by, and what stays the same when a run goes on.

    Attributes:
        tasks: ids of exercises or tasks; none for everything there is.
        seed: draws the inputs, the same for everyone; a fresh one unless given.
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
    found, left_out = submissions.find(folder)
    fixed = _settle(out, settings, resume)
    for line in left_out:
        say(f"left out: {line}")
    wanted = list(select(fixed["tasks"]))
    students = {
        name: submissions.read(name, places, wanted)
        for name, places in sorted(submissions.by_student(found).items())
    }
    missing = [each for each in students.values() if _record_of(out, each) is None]
    jobs = {each.student: _jobs(each, wanted, fixed) for each in missing if not each.problem}
    wants_gpu = any(job.wants_gpu for parts in jobs.values() for job in parts)
    if jobs and scheduler is None and (level := best_level()) != BUBBLEWRAP:
        say(f"{level}; to contain more, install bubblewrap")
    with connect(workers, scheduler, wants_gpu) if jobs else nullcontext() as client:
        _make_folder(out, fixed)
        _grade_all(missing, jobs, out, fixed, client, say, len(students))
    records = [record for each in students.values() if (record := _record_of(out, each)) is not None]
    _write_tables(out, records, settings.assignment, known)
    graded = {record["student"] for record in records}
    return Grades(tuple(records), tuple(name for name in students if name not in graded))


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
        return {**given, "seed": fresh_seed() if settings.seed is None else settings.seed}
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


def _grade_all(
    missing: Sequence[Submission],
    jobs: Mapping[str, Sequence[Job]],
    out: Path,
    fixed: Mapping[str, Any],
    client: Client | None,
    say: Callable[[str], None],
    everyone: int,
) -> None:
    """Write the record of each of `missing` as soon as its last job is done; who has a problem has none."""
    by_name = {each.student: each for each in missing}
    with Progress(everyone, everyone - len(missing), say) as progress:
        nothing = ((each.student, [_nothing(each, fixed)]) for each in missing if each.problem)
        for student, answers in chain(nothing, _answers(client, jobs, progress.say) if client else ()):
            record = make_record(by_name[student], answers, fixed["weights"], __version__)
            write_record(out, record)
            for line in _to_say(record):
                progress.say(f"{student}: {line}")
            progress.one_more()


def _to_say(record: Record) -> list[str]:
    """What whoever grades is told at once. Files that are not there are counted at the end."""
    return [*tables.sentences(tables.obstacles(record)), *record["notes"]]


def _jobs(submission: Submission, wanted: Sequence[str], fixed: Mapping[str, Any]) -> list[Job]:
    """The submission in up to two parts: what plain Python checks, and what a GPU may be wanted for."""
    parts = []
    for kind in (False, True):
        names = [name for name in wanted if needs_more_than_python(name) == kind]
        tasks = tuple(task.id for name in names for task in select(fixed["tasks"])[name])
        if tasks:
            files = {name: submission.files[name] for name in names if name in submission.files}
            parts.append(Job(submission.student, tasks, files, fixed["seed"]))
    return parts


def _nothing(submission: Submission, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """What `run` would say of a submission of which nothing can be read."""
    told = [
        result.to_dict()
        for tasks in select(fixed["tasks"]).values()
        for result in could_not(tasks, submission.problem, fixed["seed"], CAN_BE_READ)
    ]
    return {"results": told, "sandbox": []}


def _answers(
    client: Client, jobs: Mapping[str, Sequence[Job]], say: Callable[[str], None]
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(student, what `run` gave for each part) as they come. Whoever has a lost part is named and left to --resume."""
    gpu = gpu_of_its_own(client)
    futures = {
        client.submit(run, job, pure=False, retries=1, resources=gpu if job.wants_gpu else {}): job
        for parts in jobs.values()
        for job in parts
    }
    answers: dict[str, list[dict[str, Any]]] = {student: [] for student in jobs}
    lost = set()
    for future in as_completed(list(futures)):
        student = futures[future].student
        if future.status == "finished":
            answers[student].append(future.result())
            if len(answers[student]) == len(jobs[student]):
                yield student, answers.pop(student)
        elif student not in lost:
            lost.add(student)
            say(f"{student}: not graded, since the worker was lost: run again with --resume")


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
