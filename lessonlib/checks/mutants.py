"""Wrong answers that students may well give, each written as a change of the worked answer.

`solutions/mutants/ex03.3.toml` holds those of one task, a table each, named after the mistake:

    [counts_from_one]
    mistake = "A sentence that says what is wrong."
    property = "the property that rejects it"
    message = "a piece of what the student reads"
    [[counts_from_one.edits]]
    old = 'lines of the worked answer'
    new = 'lines in their place'

`old` is one or more whole lines that stand exactly once in the task's functions; `new` takes their place, at the same
indentation. A wrong answer that is another program altogether has `body` in place of edits: all lines of the function,
which `function` names where the task has several. `helpers` is code that stands before that function.
"""

from __future__ import annotations

import difflib
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, StringConstraints, ValidationError
from pydantic.dataclasses import dataclass

from lessonlib import regions
from lessonlib.checks.runner import select
from lessonlib.errors import CourseError
from lessonlib.layout import SOLUTIONS, find_folder

FOLDER = f"{SOLUTIONS}/mutants"
Change = tuple[int, int, list[str]]  # first line, end, and the lines that take their place
Text = Annotated[str, StringConstraints(min_length=1)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Edit:
    """Whole lines of the worked answer, and the lines that take their place ("" for none)."""

    old: Text
    new: str


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Mutant:
    """One wrong answer.

    Attributes:
        task, name: "ex03.3", "double_free".
        mistake: a sentence that says what is wrong.
        property: the property that rejects it.
        message: a piece of what the student reads.
        tier: the only tier that can tell; "" where each can.
        edits: changes of the worked answer.
        function, body: in place of edits, the function that is replaced ("" for the only one) and its lines.
        helpers: code that stands before the function.
    """

    task: str
    name: str
    mistake: Text
    property: Text
    message: Text
    tier: Literal["", "interpreter", "gpu"] = ""
    edits: tuple[Edit, ...] = ()
    function: str = ""
    body: str = ""
    helpers: str = ""

    def __post_init__(self) -> None:
        if bool(self.edits) == bool(self.body):
            raise ValueError("give either edits or a body")
        if self.edits and (self.function or self.helpers):
            raise ValueError("function and helpers go with a body")

    def file(self, folder: Path) -> str:
        """The whole file of a student who made this mistake and no other.

        Args:
            folder: the worked answers, of which `mutants` is a part.

        Raises `CourseError` where the mutant does not fit its worked answer.
        """
        return regions.without_marks(self._changed(folder))

    def answer(self, folder: Path) -> str:
        """The functions of the task in that file, without docstrings. Raises as `file` does."""
        functions = regions.functions_of(self._changed(folder), self.task)
        return "\n\n\n".join(filter(None, [self.helpers.strip("\n"), functions]))

    def _changed(self, folder: Path) -> str:
        """The worked answer with its changes, and still with its marks."""
        (exercise,) = select([self.task])
        worked = (folder / f"{exercise}.py").read_text(encoding="utf-8")
        lines, spans = worked.splitlines(), regions.spans(worked, self.task)
        changes = [self._replacement(lines, spans)] if self.body else self._replacements(lines, spans)
        for first, end, new in reversed(changes):
            lines[first:end] = new
        return "\n".join(lines) + "\n"

    def _replacement(self, lines: Sequence[str], spans: Mapping[str, tuple[int, int]]) -> Change:
        """The function with another body and with what stands before it."""
        name = self.function or next(iter(spans))
        if name not in spans or (len(spans) > 1 and not self.function):
            raise self._misfit(f"function has to be one of {', '.join(spans)}, not {self.function!r}")
        first, end = spans[name]
        opening = next(i for i in range(first, end) if lines[i].strip() == regions.OPEN)
        head = lines[first : opening + 2]  # down to the line of the stub
        helpers = [*self.helpers.strip("\n").splitlines(), "", ""] if self.helpers else []
        body = textwrap.indent(self.body.strip("\n"), "    ").splitlines()
        return first, end, [*helpers, *head, *body, f"    {regions.CLOSE}"]

    def _replacements(self, lines: Sequence[str], spans: Mapping[str, tuple[int, int]]) -> list[Change]:
        """All edits, in the order of the lines that they change."""
        changes = sorted(self._located(edit, lines, spans) for edit in self.edits)
        for (_, end, _), (first, _, _) in pairwise(changes):
            if first < end:
                raise self._misfit(f"two edits change line {first + 1} of the worked answer")
        return changes

    def _located(self, edit: Edit, lines: Sequence[str], spans: Mapping[str, tuple[int, int]]) -> Change:
        old = textwrap.dedent(edit.old).strip("\n")
        number = old.count("\n") + 1
        starts = [
            start
            for first, end in spans.values()
            for start in range(first, end - number + 1)
            if textwrap.dedent("\n".join(lines[start : start + number])) == old
        ]
        if len(starts) != 1:
            raise self._misfit(f"these lines stand {len(starts)} times in {self.task}, not once: {old!r}")
        (start,) = starts
        new = textwrap.indent(textwrap.dedent(edit.new).strip("\n"), _indent(lines[start : start + number]))
        return start, start + number, new.splitlines()

    def _misfit(self, problem: str) -> CourseError:
        return CourseError(f"mutant {self.task} {self.name}: {problem}")


def _indent(lines: Sequence[str]) -> str:
    """What all of them, but for the empty ones, begin with."""
    return min((line[: len(line) - len(line.lstrip())] for line in lines if line.strip()), default="")


def find_mutants() -> Path:
    """The folder of all mutants. Raises `CourseError` where there is none: only a clone has it."""
    try:
        return find_folder(FOLDER)
    except CourseError:
        raise CourseError(
            f"no folder {FOLDER} here: a clone of the course has it, a copy that is handed out has not"
        ) from None


def read_all(folder: Path) -> dict[str, dict[str, Mutant]]:
    """Task → name → mutant, in the order of their files. Raises `CourseError` for a file that cannot be read."""
    return {path.stem: _read(path) for path in sorted(folder.glob("*.toml"))}


def _read(path: Path) -> dict[str, Mutant]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CourseError(f"{path} is no TOML: {error}") from error
    return {name: _mutant(path, name, table) for name, table in tables.items()}


def _mutant(path: Path, name: str, table: Any) -> Mutant:
    if not isinstance(table, dict):
        raise CourseError(f"{path}: {name} should be a table, not {table!r}")
    try:
        return Mutant(**{**table, "task": path.stem, "name": name})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise CourseError(f"{path}: {' '.join(filter(None, [name, key]))}: {first['msg']}") from error


def choose(known: dict[str, Any], name: str, what: str) -> Any:
    """`known[name]`. Raises `CourseError`, with the nearest names there are."""
    if name in known:
        return known[name]
    near = [each for each in known if each.startswith(name)] or difflib.get_close_matches(name, known, 1)
    remedy = f"did you mean {' or '.join(near)}?" if near else f"there is {', '.join(known)}"
    raise CourseError(f"no {what} {name!r}: {remedy}")
