"""The `lesson` command: in a process of its own, or in this one, which has imported torch already."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from typing import Any

import click

from lessonlib import cli


def lesson_process(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """As a person types it; `variables` are added to the environment."""
    command = [sys.executable, "-m", "lessonlib.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})


def lesson(*words: str) -> subprocess.CompletedProcess[str]:
    """The same without the seconds of a new process. What the command raises, a test sees."""
    printed, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complained):
        status = cli.main(words)
    return subprocess.CompletedProcess(words, status, printed.getvalue(), complained.getvalue())


def options_of(*words: str) -> dict[str, Any]:
    """What a command would be called with. Raises `click.UsageError` for what cannot be typed."""
    command: click.Command = cli.lesson
    context = click.Context(command, **command.context_settings)
    rest = list(words)
    while isinstance(command, click.Group):
        command = command.commands[rest.pop(0)]
    return command.make_context(str(command.name), rest, context).params
