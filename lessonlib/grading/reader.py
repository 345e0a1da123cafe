"""Reads submissions in a process of its own, one after another, each within a time limit.

What lies in a submission may hang the libraries that read it, take all memory or end Python. Then that process
ends, the file that it was looking into is refused with a sentence, and the rest of the submission is read by the
next process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import signal
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Self

from lessonlib.grading.layouts import Handin
from lessonlib.grading.submissions import Submission, read

READ_SECONDS = 20  # for one submission
GRACE_SECONDS = 10.0  # until a process that should have ended is taken for stuck
START_SECONDS = 120.0  # to import what reading takes, on a busy machine
READER_BYTES = 4 << 30
MOST_REFUSED = 3  # files of one submission that may end the reader
READY = ""


class Reader:
    """Reads what students handed in. Use as a context manager, so that no process is left.

    Args:
        source: the class's folder or zip.
        wanted: ids of the exercises to look for.
        seconds: how long reading one submission may take.
    """

    def __init__(self, source: Path, wanted: Sequence[str], seconds: int = READ_SECONDS) -> None:
        self._source, self._wanted, self._seconds = source, tuple(wanted), seconds
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def read(self, handin: Handin) -> Submission:
        """What a student handed in. Never raises: a submission can have a problem."""
        refused: dict[str, str] = {}
        while True:
            answer = self._ask(handin, refused)
            if isinstance(answer, Submission):
                return answer
            path, reason = answer
            sentence = f"{path or 'It'} {reason}."
            if not path or path in refused or len(refused) == MOST_REFUSED:
                return Submission(handin.student, problem=sentence)
            refused[path] = sentence

    def _ask(self, handin: Handin, refused: Mapping[str, str]) -> Submission | tuple[str, str]:
        """The submission; or which file ended the process and how."""
        pipe, path = self._ready(), ""
        try:
            pipe.send((handin, dict(refused)))
            while pipe.poll(self._seconds + GRACE_SECONDS):
                answer = pipe.recv()
                if isinstance(answer, Submission):
                    return answer
                path = answer
        except (EOFError, OSError):
            return path, self._end()
        self._end()
        return path, self._too_long()

    def _ready(self) -> Connection:
        """The near end of a pipe to a process that waits for work."""
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, far = context.Pipe()
            arguments = (far, self._source, self._wanted, self._seconds)
            self._process = context.Process(target=_serve, args=arguments, daemon=True)
            self._process.start()
            far.close()
            if not self._pipe.poll(START_SECONDS) or self._pipe.recv() != READY:
                raise RuntimeError("the process that reads submissions did not start")
        return self._pipe

    def _end(self) -> str:
        """End the process; how it ended, as the end of a sentence."""
        if self._process is None or self._pipe is None:
            return ""
        self._pipe.close()
        self._process.join(timeout=1.0)  # where it ended by itself, with its own exit code
        if self._process.is_alive():
            self._process.kill()
            self._process.join(timeout=GRACE_SECONDS)
        code, self._process, self._pipe = self._process.exitcode, None, None
        if code == -signal.SIGALRM:
            return self._too_long()
        return f"ended the process that read it (exit code {code})"

    def _too_long(self) -> str:
        return f"could not be read within {self._seconds} seconds"


def _serve(pipe: Connection, source: Path, wanted: Sequence[str], seconds: int) -> None:
    """The far side: answers each handin with the path of every file that it looks into, then the submission."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that grades
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends this process, also inside of a library's loop
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = READER_BYTES if hard == resource.RLIM_INFINITY else min(READER_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    warnings.simplefilter("ignore")  # of the parser, about a student's text
    with contextlib.suppress(EOFError, OSError):
        pipe.send(READY)
        while True:
            handin, refused = pipe.recv()
            signal.alarm(seconds)
            submission = read(source, handin, wanted, pipe.send, refused)
            signal.alarm(0)
            pipe.send(submission)
