"""The regions of a worked answer that a student writes: taken out, they leave the exercise.

A region goes from `# >>> solution` to `# <<< solution`. Its first line, `# stub: …`, is the line of code that
stands there instead. Standard library only: the wheel is built with this.
"""

from __future__ import annotations

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
