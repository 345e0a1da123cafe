"""`lesson check`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from lessonlib.cli.command import Command, check_out, seed_from_zero, write_result
from lessonlib.errors import CourseError
from lessonlib.files import write_whole


@click.command(cls=Command, short_help="look at your answers", example="lesson check ex01")
@click.argument("exercises", nargs=-1, help="ex01, ex02.1, … (default: all).")
@click.option("--from", "folder", default="exercises", help="Folder of your files.")
@click.option("--seed", type=int, callback=seed_from_zero, help="Draw the same inputs again.")
@click.option("--so-far", is_flag=True, help="Exit with 0 where all that is written passed, as in CI.")
@click.option(
    "--json", "json_file", metavar="FILE", help="Write JSON there (-: print it instead of the text)."
)
@click.option("--junit", metavar="FILE", help="Write JUnit XML there.")
@click.option("--rides", metavar="FOLDER", help="Write failing rides there, as Traces for the elevator.")
def check(
    exercises: tuple[str, ...],
    folder: str,
    seed: int | None,
    so_far: bool,
    json_file: str | None,
    junit: str | None,
    rides: str | None,
) -> int:
    """Look at your answers, and show for each part what is right and which input shows what is wrong."""
    from lessonlib import checks
    from lessonlib.checks.junit import to_junit

    for path in (json_file, junit):
        check_out(path)
    report = checks.check(*exercises, folder=folder, seed=seed)
    if json_file == "-":
        print(json.dumps(report.to_dict(), indent=1))
    else:
        print(f"Files read: {', '.join(_as_typed(report.folder / name) for name in report.files)}")
        print(report)
        write_result(report.to_dict(), json_file)
    if junit:
        write_whole(junit, to_junit(report.results))
    if rides:
        _save_rides(report, rides)
    return report.exit_code_so_far if so_far else report.exit_code


def _save_rides(report: Any, folder: str) -> None:
    try:
        report.save_rides(folder)
    except OSError as error:
        raise CourseError(f"cannot write to {folder}: {error.strerror}; choose another place") from error


def _as_typed(path: Path) -> str:
    """As one types it from here; absolute where that is shorter."""
    try:
        return min(os.path.relpath(path), str(path.absolute()), key=len)
    except ValueError:  # on another drive of Windows
        return str(path.absolute())
