"""`lesson model`."""

from __future__ import annotations

import click

from lessonlib.cli.command import DONE, Command, Group


@click.group(cls=Group, short_help="fetch the course's model (93 MB)")
def model() -> None:
    """The course's model, SmolLM2-135M-Instruct."""


@model.command(cls=Command, short_help="bring it into the cache; the last line is its folder")
def fetch() -> int:
    """Bring SmolLM2-135M-Instruct into the cache, or check that it is there. The last line is its folder."""
    from lessonlib.fetch import MODEL_NAME, fetch_model

    steps: list[str] = []

    def report(step: str) -> None:
        steps.append(step)
        print(step, flush=True)

    folder = fetch_model(report)
    done = "was fetched and checked" if steps else "was there already, and every byte of it is right"
    print(f"{MODEL_NAME} {done}. Its folder:")
    print(folder)
    return DONE
