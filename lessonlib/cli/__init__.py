"""The `lesson` command. Exit status: 0 done, 1 a check failed, 2 the input could not be used, 130 interrupted."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

import click

from lessonlib import __version__
from lessonlib.cli.bench import bench
from lessonlib.cli.check import check
from lessonlib.cli.command import BAD_INPUT, DONE, INTERRUPTED, Sections, one_line
from lessonlib.cli.compare import compare
from lessonlib.cli.doctor import doctor
from lessonlib.cli.generate import generate
from lessonlib.cli.grade import grade
from lessonlib.cli.hint import hint
from lessonlib.cli.lab import lab
from lessonlib.cli.model import model
from lessonlib.cli.mutant import mutant
from lessonlib.cli.simulate import simulate
from lessonlib.cli.start import start
from lessonlib.cli.tickets import tickets
from lessonlib.errors import CourseError

__all__ = ["lesson", "main"]

lesson = Sections(
    "lesson",
    help="The continuous-batching course: its folder, its exercises, its simulator, its engine.",
    epilog="`lesson COMMAND --help` lists what a command takes.",
    sections={
        "To begin": (start, doctor, model, lab),
        "Exercises": (check, hint, tickets),
        "To try out": (simulate, generate),
        "To measure": (bench, compare),
        "For instructors": (grade, mutant),
    },
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            help="Show the version and exit.",
            callback=lambda context, _, asked: _print_version(context) if asked else None,
        )
    ],
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; errors of the user's input become one line and status 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal cannot show ends nothing
        sys.stdout.reconfigure(errors="backslashreplace")
    given = None if arguments is None else list(arguments)
    try:
        return lesson.main(given, prog_name="lesson", standalone_mode=False) or DONE
    except CourseError as error:
        return _refuse(str(error))
    except click.ClickException as error:
        return _refuse(one_line(error))
    except click.Abort as error:  # how click passes on Ctrl-C, and an EOFError, which is an error of ours
        if isinstance(error.__cause__, EOFError):
            raise error.__cause__ from None
        print("lesson: interrupted", file=sys.stderr)
        return INTERRUPTED


def _print_version(context: click.Context) -> None:
    print(__version__)
    context.exit()


def _refuse(message: str) -> int:
    print(f"lesson: error: {message}", file=sys.stderr)
    return BAD_INPUT
