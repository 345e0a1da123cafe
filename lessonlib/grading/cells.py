"""Takes a student's functions out of a notebook, so that they can be checked like a file.

A notebook draws, prints and imports the course. What an exercise needs of it are its functions and classes,
the constants they use, and imports of what the exercise may import; the last definition of a name is the one
that counts.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lessonlib.checks.spec import Exercise
from lessonlib.grading.archives import describe

MAX_CODE = 1 << 20  # characters of all code cells together

Statement = ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign


@dataclass(frozen=True)
class _Cell:
    """A code cell: its number among all cells, its lines, and what of it may go into a file."""

    number: int
    lines: list[str]
    statements: list[Statement]


def functions_files(notebook: bytes, exercises: Sequence[Exercise]) -> dict[str, str]:
    """Exercise id → the text of a Python file, for those of the exercises whose functions the notebook has.

    Raises `ValueError`, with the cell, for what is not a notebook, and where there is none of the functions but a
    cell that cannot be parsed.
    """
    cells, broken = [], ""
    for number, source in _code_cells(notebook):
        lines = _lines(source)
        try:
            cells.append(_Cell(number, lines, list(_statements(lines))))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            broken = broken or f"cell {number} cannot be parsed ({describe(error)})"
    files = {exercise.id: text for exercise in exercises if (text := _functions_file(cells, exercise))}
    if broken and not files:
        raise ValueError(broken)
    return files


def _functions_file(cells: Sequence[_Cell], exercise: Exercise) -> str:
    """What the cells have for this exercise; "" where they have none of its functions."""
    defined: set[str] = set()
    texts = []
    for cell in cells:
        wanted = [each for each in cell.statements if _may_be_used(each, exercise)]
        defined |= {each.name for each in wanted if isinstance(each, ast.FunctionDef)}
        if wanted:
            texts.append(f"# cell {cell.number}\n" + "\n\n\n".join(_texts(wanted, cell.lines)))
    named = {name for task in exercise.tasks for name in task.functions}
    return "\n\n\n".join(texts) + "\n" if named & defined else ""


def _code_cells(notebook: bytes) -> list[tuple[int, str]]:
    """(number, source) of each code cell; its outputs, however large, are not looked at."""
    found = []
    try:
        cells = json.loads(notebook.decode("utf-8-sig"))["cells"]
        for number, cell in enumerate(cells, start=1):
            if cell["cell_type"] == "code":
                source = cell["source"]
                found.append((number, source if isinstance(source, str) else "".join(source)))
    except (UnicodeDecodeError, ValueError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"not a notebook ({describe(error)})") from error
    code = sum(len(source) for _, source in found)
    if code > MAX_CODE:
        raise ValueError(f"its code has {code:,} characters, more than {MAX_CODE:,}")
    return found


def _lines(source: str) -> list[str]:
    """The lines of a cell, as Python counts them. Those for IPython are empty."""
    lines = source.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return ["" if line.lstrip().startswith(("%", "!", "?")) else line for line in lines]


def _statements(lines: Sequence[str]) -> Iterator[Statement]:
    """What of one cell defines something, or imports."""
    for statement in ast.parse("\n".join(lines)).body:
        match statement:
            case ast.FunctionDef() | ast.ClassDef() | ast.Import() | ast.ImportFrom():
                yield statement
            case ast.Assign() | ast.AnnAssign() if _is_constant(statement.value):
                yield statement


def _is_constant(value: Any) -> bool:
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False
    return True


def _may_be_used(statement: Statement, exercise: Exercise) -> bool:
    """Whether it goes into this exercise's file: an import only of what the exercise may import."""
    match statement:
        case ast.Import():
            names = [alias.name for alias in statement.names]
        case ast.ImportFrom():
            names = [statement.module or ""]
        case _:
            return True
    roots = {name.partition(".")[0] for name in names}
    return roots <= {*sys.stdlib_module_names, *exercise.packages}


def _texts(statements: Sequence[Statement], lines: Sequence[str]) -> Iterator[str]:
    """The statements as the student wrote them, decorators included; those that share a line together."""
    spans: list[list[int]] = []  # [line before the first, last line]
    for each in statements:
        first = min([each.lineno, *(one.lineno for one in getattr(each, "decorator_list", ()))])
        last = each.end_lineno or each.lineno
        if spans and first <= spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], last)
        else:
            spans.append([first - 1, last])
    return ("\n".join(lines[start:end]) for start, end in spans)
