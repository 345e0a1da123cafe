"""Every plausible wrong answer is rejected, by the property and with the words that were meant for it.

A mutant in `solutions/mutants/<task>/` is one function (and its helpers) that takes the place of the right
one in a copy of the solution. Its docstring says what the mistake is, which property rejects it and a piece
of what the student is told.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from lessonlib.checks import EXERCISES, check

SOLUTIONS = Path(__file__).parents[1] / "solutions"
MUTANTS = sorted((SOLUTIONS / "mutants").glob("*/*.py"))
TASKS = [task for exercise in EXERCISES.values() for task in exercise.tasks]


def expectation(mutant: Path) -> dict[str, str]:
    docstring = ast.get_docstring(ast.parse(mutant.read_text(encoding="utf-8"))) or ""
    fields = (line.partition(": ") for line in docstring.splitlines() if ": " in line)
    return {name: value for name, _, value in fields if name in ("property", "told")}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_mutant_is_told_what_is_wrong(mutant: Path, tmp_path: Path) -> None:
    task = mutant.parent.name
    exercise = task.split(".")[0]
    solution = (SOLUTIONS / f"{exercise}.py").read_text(encoding="utf-8")
    (tmp_path / f"{exercise}.py").write_text(solution + "\n\n" + mutant.read_text(encoding="utf-8"))

    (result,) = check(task, folder=tmp_path, call_seconds=0.5).results

    expected = expectation(mutant)
    assert (result.status, result.property_name) == ("failed", expected["property"]), result.message
    assert expected["told"] in result.message
    assert result.call.partition("(")[0] in next(t for t in TASKS if t.id == task).functions


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_every_property_rejects_some_mutant(task) -> None:
    gallery = [path for path in MUTANTS if path.parent.name == task.id]
    assert len(gallery) >= 5
    rejecting = {expectation(path)["property"] for path in gallery}
    assert {property_.name for property_ in task.properties} <= rejecting
