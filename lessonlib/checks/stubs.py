"""Makes `exercises/` out of `solutions/`: `python -m lessonlib.checks.stubs`, and `--check` to only look.

`lessonlib.regions` says what of a solution the student writes.
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

from lessonlib.errors import CourseError
from lessonlib.layout import find_folder
from lessonlib.regions import stubs


def drifted(solutions: Path, exercises: Path) -> list[str]:
    """Names of the exercises that are missing, left over, or not what `solutions` gives."""
    made = stubs(solutions)
    there = {path.name: path.read_text(encoding="utf-8") for path in exercises.glob("ex*.py")}
    return sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))


def _is_written_in(text: str, stub: str) -> bool:
    """Whether someone has put code where the stub lines were: not to be overwritten.

    A task that `text` has nothing of yet, since it is new in the solution, is no answer.
    """
    try:
        there = _is_stub(text)
    except SyntaxError:
        return True
    asked = [name for name, is_stub in _is_stub(stub).items() if is_stub]
    return not any(there.values()) or not all(there.get(name, True) for name in asked)


def _is_stub(source: str) -> dict[str, bool]:
    """Function -> whether it raises NotImplementedError somewhere."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    return {node.name: "raise NotImplementedError" in ast.unparse(node) for node in functions}


def write(solutions: Path, exercises: Path, force: bool = False) -> list[str]:
    """Bring the drifted exercises in step and return their names.

    Raises `CourseError`, before it writes anything, where that would overwrite a student's answer.
    """
    made = stubs(solutions)
    names = [name for name in drifted(solutions, exercises) if name in made]
    for name in names:
        path = exercises / name
        if not force and path.is_file() and _is_written_in(path.read_text(encoding="utf-8"), made[name]):
            raise CourseError(f"{path} holds an answer: move it away, or overwrite it with --force")
    for name in names:
        (exercises / name).write_text(made[name], encoding="utf-8")
    return names


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit code 0 in step, 1 drifted (with `--check`), 2 could not."""
    parser = argparse.ArgumentParser(prog="python -m lessonlib.checks.stubs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say which exercises have drifted")
    parser.add_argument("--force", action="store_true", help="overwrite answers too")
    options = parser.parse_args(arguments)
    try:
        solutions, exercises = find_folder("solutions"), find_folder("exercises")
        if options.check:
            names = drifted(solutions, exercises)
            for name in names:
                print(f"{name} is not what solutions/{name} gives: run `python -m lessonlib.checks.stubs`")
            return 1 if names else 0
        for name in write(solutions, exercises, options.force):
            print(f"wrote {exercises / name}")
    except CourseError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
