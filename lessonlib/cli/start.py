"""`lesson start`."""

from __future__ import annotations

import click

from lessonlib.cli.command import DONE, Command


@click.command(cls=Command, short_help="lay the course into a folder, or bring it up to date there")
@click.argument(
    "folder",
    required=False,
    help="A new or an empty one, or one that was started before (default: the one that you are in, else "
    "./continuous-batching-course).",
)
@click.option(
    "--class",
    "for_class",
    is_flag=True,
    help="A folder to hand out to a class: without the worked answers, and without a clone's history.",
)
def start(folder: str | None, for_class: bool) -> int:
    """Lay the course into a folder, or bring it up to date there. What you changed stays as it is."""
    from lessonlib import start as laying

    print(*laying.start(folder, with_solutions=not for_class), sep="\n")
    return DONE
