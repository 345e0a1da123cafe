"""`lesson tickets`."""

from __future__ import annotations

from pathlib import Path

import click

from lessonlib.cli.command import DONE, Command


@click.command(
    cls=Command,
    short_help="the three incidents of exercise 07 that are drawn for a name",
    example="lesson tickets ada --save tickets",
)
@click.argument("name", help="Yours, as `on_call` gives it in exercises/ex07.py.")
@click.option("--save", metavar="FOLDER", help="Write each ride there: a page that plays it, and its Trace.")
def tickets(name: str, save: str | None) -> int:
    """Print three tickets: what people say, six causes to choose from, and what the number beside each counts."""
    from lessonlib import incidents

    drawn = incidents.tickets(name)
    print("\n\n".join(map(str, drawn)))
    if save is not None:
        from lessonlib.viz import Elevator

        folder = Path(save)
        folder.mkdir(parents=True, exist_ok=True)
        for ticket in drawn:
            ticket.trace.save(folder / f"{ticket.desk}.json.gz")
            Elevator(ticket.trace, ticket.complaint).to_html(folder / f"{ticket.desk}.html")
        print(f"\nwrote {len(drawn)} rides to {folder}: open {folder / drawn[0].desk}.html")
    return DONE
