"""`lesson doctor`."""

from __future__ import annotations

import json

import click

from lessonlib.cli.command import DONE, FAILED, Command


@click.command(cls=Command, short_help="what this machine can run, and how to get the rest")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> int:
    """Say what this machine can run of the course, and how to get the rest."""
    from lessonlib import doctor as examination

    found = examination.report()
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        examination.text(found)
    return FAILED if found["tier"] == examination.NO_TIER else DONE
