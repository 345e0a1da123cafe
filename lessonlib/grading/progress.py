"""How far a class is: a bar on a terminal; elsewhere, in a log or a pipe, a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tqdm import tqdm

from lessonlib.checks.sandbox.cleaning import clean

LINE_SECONDS = 5.0  # between two lines, at least


class Progress:
    """Use as a context manager.

    Args:
        total: students in the class.
        done: of them, those who were done before.
        log: gets each line for the person who grades.
    """

    def __init__(self, total: int, done: int, log: Callable[[str], None]) -> None:
        self._bar = tqdm(
            total=total, initial=done, unit="student", file=sys.stderr, disable=None, leave=False
        )
        self._total, self._done, self._log = total, done, log
        self._logged_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def one_more(self) -> None:
        """Another student is done."""
        self._done += 1
        self._bar.update()
        late = time.monotonic() - self._logged_at >= LINE_SECONDS
        if self._bar.disable and (late or self._done == self._total):
            self._logged_at = time.monotonic()
            self._log(f"{self._done} of {self._total} done")

    def log(self, line: str) -> None:
        """A line above the bar."""
        with tqdm.external_write_mode():
            self._log(clean(line))
