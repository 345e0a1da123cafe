"""Takes a student's functions out of a notebook, so that they can be checked like a file.

A notebook draws, prints and imports the course. What an exercise needs of it are its functions and classes,
the constants they use, and imports of what the exercise may import; the last definition of a name is the one
that counts.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from typing import Any

from lessonlib.checks.spec import Exercise

Statement = ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign


def functions_file(notebook: bytes, exercise: Exercise) -> str:
    """The text of a Python file with what the notebook has for this exercise; "" where it has none of its functions.

    Raises `ValueError`, with the cell, for what is not a notebook or has a cell that cannot be parsed beside a
    function of the exercise.
    """
    wanted = {name for task in exercise.tasks for name in task.functions}
    taken: list[str] = []
    defined: set[str] = set()
    broken = ""
    for number, source in _code_cells(notebook):
        try:
            statements = list(_statements(source, exercise))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            broken = broken or f"cell {number} cannot be parsed ({_said(error)})"
            continue
        defined |= {statement.name for statement in statements if isinstance(statement, ast.FunctionDef)}
        if statements:
            taken.append(f"# cell {number}\n" + "\n\n\n".join(_text_of(each, source) for each in statements))
    if not wanted & defined:
        if broken:
            raise ValueError(broken)
        return ""
    return "\n\n\n".join(taken) + "\n"


def _code_cells(notebook: bytes) -> Iterator[tuple[int, str]]:
    """(number, source) of each code cell; its outputs, however large, are not looked at."""
    try:
        cells = json.loads(notebook.decode("utf-8"))["cells"]
        for number, cell in enumerate(cells, start=1):
            if cell["cell_type"] == "code":
                source = cell["source"]
                yield number, source if isinstance(source, str) else "".join(source)
    except (UnicodeDecodeError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a notebook ({_said(error)})") from error


def _said(error: BaseException) -> str:
    """In one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _statements(source: str, exercise: Exercise) -> Iterator[Statement]:
    """What of one cell goes into the file. Lines for IPython are left out."""
    lines = ("" if line.lstrip().startswith(("%", "!", "?")) else line for line in source.splitlines())
    for statement in ast.parse("\n".join(lines)).body:
        match statement:
            case ast.FunctionDef() | ast.ClassDef():
                yield statement
            case ast.Import() | ast.ImportFrom() if _may_import(statement, exercise):
                yield statement
            case ast.Assign() | ast.AnnAssign() if _is_constant(statement.value):
                yield statement


def _text_of(statement: Statement, source: str) -> str:
    """As the student wrote it, decorators included."""
    first = min([statement.lineno, *(each.lineno for each in getattr(statement, "decorator_list", ()))])
    return "\n".join(source.splitlines()[first - 1 : statement.end_lineno])


def _may_import(statement: ast.Import | ast.ImportFrom, exercise: Exercise) -> bool:
    names = (
        [alias.name for alias in statement.names]
        if isinstance(statement, ast.Import)
        else [statement.module or ""]
    )
    roots = {name.partition(".")[0] for name in names}
    return roots <= {*sys.stdlib_module_names, *exercise.packages}


def _is_constant(value: Any) -> bool:
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False
    return True
