"""`lesson hint`."""

from __future__ import annotations

import click

from lessonlib.cli.command import DONE, Command


@click.command(
    cls=Command,
    short_help="a nudge for one task, then a clearer one, then nearly the answer",
    example="lesson hint ex01.1",
)
@click.argument("task", metavar="TASK", help="Such as ex01.1.")
@click.argument("number", type=int, default=1, metavar="[NUMBER]", help="1 (default), 2 or 3.")
@click.option("--solution", is_flag=True, help="The worked answer.")
def hint(task: str, number: int, solution: bool) -> int:
    """Print a hint for one task: 1 nudges, 2 is clearer, 3 is nearly the answer."""
    from lessonlib import checks

    print(checks.solution(task) if solution else checks.hint(task, number))
    return DONE
