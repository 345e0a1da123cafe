"""The processes of the contenders, and the comparison that collects what they answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lessonlib.contenders.job import Job, Row
from lessonlib.contenders.options import Options
from lessonlib.contenders.process import ContenderError, ContenderProcess, NoMemoryError, RefusedError
from lessonlib.contenders.sizes import missing_settings
from lessonlib.errors import CourseError
from lessonlib.result import Comparison, Result


class Session:
    """Starts contenders, runs rows, and keeps every failure in the comparison instead of raising it.

    Args:
        options: what to compare.
        comparison: gets the results and failures.
        log: called with a line of text for each thing that happens.
    """

    def __init__(self, options: Options, comparison: Comparison, log: Callable[[str], None]) -> None:
        self.options, self.comparison, self.log = options, comparison, log
        self._introductions: dict[str, dict[str, Any]] = {}

    @property
    def names(self) -> list[str]:
        """The contenders that have not failed as a whole."""
        return [name for name in self.options.contenders if name not in self.comparison.failures]

    @contextlib.contextmanager
    def started(self, name: str, job: Job) -> Iterator[ContenderProcess]:
        """A process, ended with the block. Raises `CourseError` if it cannot be started."""
        process = ContenderProcess(name, job)
        try:
            yield process
        finally:
            process.close()

    @contextlib.contextmanager
    def all_started(self, names: Sequence[str], job: Job) -> Iterator[dict[str, ContenderProcess]]:
        """The processes whose model is loaded, by name. The others are in the comparison's failures."""
        with contextlib.ExitStack() as stack:
            processes = {}
            for name in names:
                self.log(f"{name}: starting, {job.dtype}")
                with self.recording_failure(name):
                    process = stack.enter_context(self.started(name, job))
                    self._introductions[name] = process.introduce(self.options.timeout)
                    processes[name] = process
            yield processes

    @contextlib.contextmanager
    def recording_failure(self, name: str) -> Iterator[None]:
        """Record an error in the block as the failure of this contender."""
        try:
            yield
        except (ContenderError, CourseError) as error:
            self.comparison.failures[name] = str(error)
            self.comparison.is_refused |= isinstance(error, RefusedError | CourseError)
            self.log(f"{name}: {error}")
            self.save()

    def run(self, process: ContenderProcess, row: Row) -> dict[str, Any] | None:
        """One run, as `ContenderProcess.run` gives it; None if it failed, which is recorded in the row's result."""
        try:
            answer = process.run(row.name, self.options.timeout)
            settings = self._introductions[process.name]["settings"] | answer["settings"]
            if missing := missing_settings(settings):
                raise ContenderError(
                    f"its settings lack {', '.join(missing)}: lessonlib/contenders/engine.py says what they hold"
                )
            return answer
        except ContenderError as error:
            result = self.result(process.name, row)
            result.failure, result.is_out_of_memory = str(error), isinstance(error, NoMemoryError)
            self.comparison.is_refused |= isinstance(error, RefusedError)
            self.log(f"{process.name}: {row.name}: {error}")
            self.save()
            return None

    def result(self, name: str, row: Row) -> Result:
        """The contender's result on the row, which is added if it is missing."""
        found = self.comparison.of(name, row.name)
        if found is None:
            about = self._introductions[name]
            found = Result(name, row.name, settings=dict(about["settings"]), versions=about["versions"])
            found.settings["load_seconds"] = round(about["took"], 1)
            self.comparison.results.append(found)
        return found

    def save(self) -> None:
        """Write the comparison so far, if a file was asked for."""
        if self.options.out:
            self.comparison.save(self.options.out)
