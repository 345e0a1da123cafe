"""Checks a class's submissions: each is read, sent to the workers, and written down as soon as it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from lessonlib import __version__
from lessonlib.checks.report import CAN_BE_READ
from lessonlib.checks.runner import could_not, select
from lessonlib.checks.sandbox.confine import BUBBLEWRAP, best_level, why_no_better
from lessonlib.errors import CourseError
from lessonlib.grading import tables
from lessonlib.grading.archives import describe
from lessonlib.grading.cluster import Pool, connect
from lessonlib.grading.job import Job, needs_more_than_python, student_seed
from lessonlib.grading.layouts import Handin
from lessonlib.grading.progress import Progress
from lessonlib.grading.reader import Reader
from lessonlib.grading.records import Record, make_record, read_record, write_record
from lessonlib.grading.settings import Results
from lessonlib.grading.similarity import shingles
from lessonlib.grading.submissions import Submission

POLL = 0.05  # seconds between two looks at the workers


class Checking:
    """One run of a class. Use as a context manager, so that no process is left.

    Args:
        source: the class's folder or zip.
        results: where the records go, and what the run is made with.
        workers, scheduler: where the checks run, as in `cluster.connect`.
        regrade: students who are graded again, whatever is there of them.
        log: gets each line for the person who grades.

    Attributes:
        records: student → record, of those who are done.
        lost: student → why they have none.
        shingles: student → exercise → what their file is compared by.
    """

    def __init__(
        self,
        source: Path,
        results: Results,
        workers: int | None,
        scheduler: str | None,
        regrade: Collection[str],
        log: Callable[[str], None],
    ) -> None:
        self.records: dict[str, Record] = {}
        self.lost: dict[str, str] = {}
        self.shingles: dict[str, dict[str, frozenset[int]]] = {}
        self._results, self._run, self._log = results, results.run, log
        self._workers, self._scheduler, self._regrade = workers, scheduler, regrade
        self._wanted = list(select(self._run["tasks"]))
        self._opened = ExitStack()
        self._reader = self._opened.enter_context(Reader(source, self._wanted))
        self._pool: Pool | None = None
        self._checked: dict[str, _Checked] = {}  # student → what is known so far

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def check(self, handins: Sequence[Handin]) -> None:
        """Have everyone's record made, but for those whose worker is lost."""
        if any(read_record(self._results.out, handin.student) is None for handin in handins):
            self._connect()  # before anything is written: a scheduler that is not there changes nothing
        with Progress(len(handins), 0, self._log) as progress:
            for handin in handins:
                self._begin(self._reader.read(handin), progress)
                self._collect(progress)
            self._wait(progress)

    def _wait(self, progress: Progress) -> None:
        """Collect what is still to come, as long as a worker is left."""
        while self._pool is not None and not self._pool.is_idle:
            self._collect(progress)
            if reason := self._pool.why_stuck(progress.log):
                for student in self._checked:
                    self._lose(student, reason, progress)
                return
            time.sleep(POLL)

    def _lose(self, student: str, reason: str, progress: Progress) -> None:
        self.lost[student] = reason
        progress.log(f"{student}: not graded, since {reason}: run again with --resume")

    def _connect(self) -> Pool:
        if self._pool is None:
            wants_gpu = any(map(needs_more_than_python, self._wanted))
            if self._scheduler is None and (level := best_level()) != BUBBLEWRAP:
                self._log(f"{level}; {why_no_better()}")
            client = self._opened.enter_context(connect(self._workers, self._scheduler, wants_gpu))
            self._results.make()
            self._pool = Pool(client)
        return self._pool

    def _begin(self, submission: Submission, progress: Progress) -> None:
        """Have a submission checked, unless there is a record of just these files."""
        student = submission.student
        self.shingles[student] = {name: shingles(text) for name, text in submission.files.items()}
        record = None if student in self._regrade else _record_of(self._results.out, submission)
        if record is not None:
            self.records[student] = record
            progress.one_more()
            return
        pool = self._connect()
        jobs = [] if submission.problem else self._jobs(submission)
        self._checked[student] = _Checked(submission, len(jobs))
        for job in jobs:
            pool.submit(job)
        if not jobs:
            self._finish(student, progress)

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
                self._lose(job.student, "the worker was lost", progress)
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
        self.records[student] = record
        for line in _lines_to_log(record):
            progress.log(f"{student}: {line}")
        progress.one_more()

    def _write(self, submission: Submission, answers: Sequence[Mapping[str, Any]]) -> Record:
        return write_record(
            self._results.out, make_record(submission, answers, self._run["weights"], __version__)
        )

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


def _lines_to_log(record: Record) -> list[str]:
    """Lines that the instructor sees at once. Files that are not there are counted at the end."""
    return [*tables.sentences(tables.obstacles(record)), *record["notes"]]


def _record_of(out: Path, submission: Submission) -> Record | None:
    """What is stored of just these files, or None."""
    record = read_record(out, submission.student)
    same = record is not None and record["digest"] == submission.digest and record["course"] == __version__
    return record if same else None
