"""`lesson lab`."""

from __future__ import annotations

import click

from lessonlib.cli.command import DONE, Command


@click.command(cls=Command, short_help="JupyterLab on the course's folder, with notebook 01 open")
@click.option(
    "--port", type=int, help="The port, or nothing.", show_default="8888, else the next that is free"
)
@click.option("--ip", metavar="ADDRESS", help="Where to listen.", show_default="this machine alone")
def lab(port: int | None, ip: str | None) -> int:
    """Open JupyterLab on the course's folder, with notebook 01 in it. Ctrl-C ends it."""
    from lessonlib.lab import open_lab

    open_lab(port, ip)
    return DONE
