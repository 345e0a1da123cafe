"""The regions of a worked answer that a student writes: taken out, they leave the exercise.

A region goes from `# >>> solution` to `# <<< solution`. Its first line, `# stub: …`, is the line of code that
stands there instead. Standard library only: the wheel is built with this.
"""

from __future__ import annotations

import ast
from pathlib import Path

from lessonlib.errors import CourseError

OPEN, CLOSE, STUB = "# >>> solution", "# <<< solution", "# stub: "


def stub_of(source: str, name: str = "solution") -> str:
    """The exercise that goes with the text of a solution.

    Raises `CourseError`, with the line, for a region without a stub line, a nested one or one left open.
    """
    stub: list[str] = []
    opened = 0  # the line of the region's opening, 0 outside
    for number, line in enumerate(source.splitlines(), start=1):
        bare = line.strip()
        if bare == OPEN:
            if opened:
                raise CourseError(f"{name} line {number}: a region opens inside the one of line {opened}")
            opened = number
        elif bare == CLOSE:
            if not opened:
                raise CourseError(f"{name} line {number}: a region closes that never opened")
            opened = 0
        elif opened == number - 1 and opened:
            if not bare.startswith(STUB):
                raise CourseError(f"{name} line {number}: a region begins with `{STUB}…`")
            stub.append(line.replace(STUB, "", 1))
        elif not opened:
            stub.append(line)
    if opened:
        raise CourseError(f"{name} line {opened}: the region is never closed with `{CLOSE}`")
    return "\n".join(stub) + "\n"


def stubs(solutions: Path) -> dict[str, str]:
    """File name → text of every exercise that `solutions` gives."""
    return {
        path.name: stub_of(path.read_text(encoding="utf-8"), path.name)
        for path in sorted(solutions.glob("ex*.py"))
    }


def without_marks(source: str) -> str:
    """The worked answer as one would have written it into the exercise."""
    return "\n".join(line for line in source.splitlines() if not _is_mark(line)) + "\n"


def spans(source: str, task: str) -> dict[str, tuple[int, int]]:
    """Name → first line and end, counted from 0, of each function with a region of this task, decorators and the
    region's last mark included."""
    lines = source.splitlines()
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)]) - 1
            end = node.end_lineno or node.lineno
            if any(line.strip().startswith(STUB) and f'"{task}:' in line for line in lines[first:end]):
                found[node.name] = first, end + (lines[end : end + 1] == [f"    {CLOSE}"])
    return found


def functions_of(source: str, task: str) -> str:
    """The functions with a region of this task, without their docstrings and the region's marks."""
    lines = source.splitlines()
    docstrings = {
        line - 1
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    return "\n\n\n".join(
        "\n".join(lines[i] for i in range(*span) if i not in docstrings and not _is_mark(lines[i]))
        for span in spans(source, task).values()
    )


def _is_mark(line: str) -> bool:
    return line.strip() in (OPEN, CLOSE) or line.strip().startswith(STUB)
