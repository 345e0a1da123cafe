"""What the commands share: exit statuses, how options are read, and how a mistake is explained in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from lessonlib.errors import CourseError
from lessonlib.files import write_whole

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Command(click.Command):
    """A command with an example of how it is called, for its help and for whoever leaves out what it needs.

    An option's name may be shortened where only one begins so. An option made with `multiple=True` takes several values
    at once: `--regrade A B` is `--regrade A --regrade B`.
    """

    def __init__(self, *arguments: Any, example: str = "", **settings: Any) -> None:
        self.example = example
        epilog = f"Example: {example}" if example else None
        super().__init__(*arguments, **{"epilog": epilog, **settings})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(self._written_out(ctx, args)))

    def _written_out(self, ctx: click.Context, args: Sequence[str]) -> Iterator[str]:
        """Arguments as click reads them. Raises `click.UsageError` for an option whose value is another option."""
        options = {
            name: option
            for option in self.get_params(ctx)
            if isinstance(option, click.Option)
            for name in option.opts
        }
        rest = list(args)
        while rest:
            argument = rest.pop(0)
            if argument == "--":
                yield from [argument, *rest]
                return
            name, equals, value = argument.partition("=")
            name = _full_name(name, options)
            yield f"{name}{equals}{value}"
            option = options.get(name)
            if option is None or option.is_flag or equals:
                continue
            if not rest or _full_name(rest[0].partition("=")[0], options) in options:
                raise click.UsageError(f"Option '{name}' needs a value.", ctx)
            yield rest.pop(0)
            while option.multiple and rest and not rest[0].startswith("-"):
                yield from (name, rest.pop(0))


def _full_name(name: str, options: Mapping[str, click.Option]) -> str:
    """The option that alone begins so; `name` where there is no such one."""
    found = [each for each in options if name.startswith("--") and each.startswith(name)]
    return found[0] if name not in options and len(found) == 1 else name


class Group(click.Group):
    """Commands of a command, one of which has to be named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:
            calls = " or ".join(f"`{ctx.command_path} {name}`" for name in self.commands)
            raise click.UsageError(f"{ctx.command_path} does nothing by itself: type {calls}", ctx)
        return super().parse_args(ctx, args)


class Sections(click.Group):
    """Commands under headings. Called without arguments it prints its help."""

    def __init__(
        self, *arguments: Any, sections: Mapping[str, Sequence[click.Command]], **settings: Any
    ) -> None:
        self.sections = sections
        super().__init__(*arguments, **settings)
        for commands in sections.values():
            for command in commands:
                self.add_command(command)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(str(command.name).ljust(width), command.get_short_help_str()) for command in commands]
                )


def one_line(error: click.ClickException) -> str:
    """What click complains of, as one line that ends in a remedy."""
    context = getattr(error, "ctx", None)
    if context is None:
        return _uncapitalized(error.format_message())
    path, example = context.command_path, getattr(context.command, "example", "")
    if isinstance(error, click.MissingParameter) and error.param is not None and example:
        missing = (
            error.param.opts[0]
            if isinstance(error.param, click.Option)
            else error.param.make_metavar(context)
        )
        return f"{path} needs {missing}, for example: {example}"
    message = _uncapitalized(error.format_message())
    return f"{message}{' ' if message.endswith(('?', '?)')) else '; '}`{path} --help` lists what there is"


def _uncapitalized(message: str) -> str:
    """A sentence of click's as the continuation of "lesson: error: "."""
    line = " ".join(message.split()).removesuffix(".")
    return line[:1].lower() + line[1:]


def seed_from_zero(context: click.Context, parameter: click.Parameter, seed: int | None) -> int | None:
    """The callback of a seed's option. Raises `CourseError` for one below 0."""
    if seed is not None and seed < 0:
        raise CourseError(f"a seed of {seed}: give 0 or more")
    return seed


def given_of(options: Mapping[str, object]) -> list[str]:
    """The names of those options that were given."""
    return [name for name, value in options.items() if value is not None]


def check_out(path: str | None) -> None:
    """Raises `CourseError` before anything is measured that could not be written down."""
    if path and not Path(path).absolute().parent.is_dir():
        raise CourseError(f"cannot write {path}: there is no such folder; choose another place")


def write_result(result: Mapping[str, Any], path: str | None) -> None:
    """Write it as JSON where a file was asked for."""
    if path:
        write_whole(path, json.dumps(result, indent=1) + "\n")
