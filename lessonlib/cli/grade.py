"""`lesson grade`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from lessonlib.cli.command import DONE, FAILED, Command, given_of, seed_from_zero
from lessonlib.errors import CourseError


@click.command(
    cls=Command, short_help="check a class's submissions", example="lesson grade submissions --out grades"
)
@click.argument("submissions", help="What was handed in: a folder, or the zip that a platform makes of it.")
@click.option("--out", required=True, metavar="FOLDER", help="Folder for the results.")
@click.option("--workers", type=int, help="Processes of this machine.", show_default="one a core")
@click.option("--scheduler", metavar="ADDRESS", help="Of a Dask scheduler, e.g. tcp://10.0.0.5:8786.")
@click.option("--resume", is_flag=True, help="Do only what is missing in --out.")
@click.option("--regrade", multiple=True, metavar="NAME...", help="As --resume, and these students again.")
@click.option(
    "--from",
    "layout",
    metavar="LAYOUT",
    help="canvas, moodle, gradescope or folders.",
    show_default="guessed where it is clear",
)
@click.option("--exercises", multiple=True, metavar="ID...", help="ex01, ex02.1, …", show_default="all")
@click.option("--weights", metavar="FILE", help='Points of tasks, TOML: "ex03.1" = 2.', show_default="1 each")
@click.option(
    "--roster", metavar="FILE", help="A gradebook exported from Canvas, or Moodle's grading worksheet."
)
@click.option(
    "--overrides", metavar="FILE", help="Points given by hand, TOML; kept in --out until another is given."
)
@click.option("--assignment", default="continuous-batching", help="Its name in the tables.")
@click.option(
    "--seed",
    type=int,
    callback=seed_from_zero,
    help="Draws everyone's inputs, with their names.",
    show_default="a fresh one",
)
def grade(**given: Any) -> int:
    """Check a class's submissions: a page, JSON and JUnit for each student, and tables for grade books."""
    from lessonlib.grading import run
    from lessonlib.grading.settings import Settings

    options = SimpleNamespace(**given)
    if len(given_of({"--workers": options.workers, "--scheduler": options.scheduler})) > 1:
        raise CourseError("--workers and --scheduler: give one of them")
    settings = Settings(
        options.exercises,
        options.seed,
        Path(options.weights) if options.weights else None,
        options.assignment,
    )
    grades = run.grade(
        options.submissions,
        options.out,
        settings,
        layout=options.layout,
        workers=options.workers,
        scheduler=options.scheduler,
        resume=options.resume,
        regrade=options.regrade,
        roster=options.roster,
        overrides=options.overrides,
    )
    print(grades.summary)
    return DONE if grades.complete else FAILED
