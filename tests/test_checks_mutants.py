"""Every plausible wrong answer is rejected, by the property and with the words that were meant for it.

A mutant in `solutions/mutants/<task>/` is one function (and its helpers) that takes the place of the right
one in a copy of the solution. Its docstring says what the mistake is, which property rejects it, a piece of
what the student is told, and the tier that can tell, where not every tier can.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import needs
import pytest

from lessonlib.checks import EXERCISES, check
from lessonlib.checks.runner import CALL_SECONDS
from lessonlib.checks.spec import PYTHON
from lessonlib.trace import Trace

SOLUTIONS = Path(__file__).parents[1] / "solutions"
MUTANTS = sorted((SOLUTIONS / "mutants").glob("*/*.py"))
TASKS = {task.id: (exercise, task) for exercise in EXERCISES.values() for task in exercise.tasks}
KERNELS = [path for path in MUTANTS if TASKS[path.parent.name][0].tier != PYTHON]


def expectation(mutant: Path) -> dict[str, str]:
    docstring = ast.get_docstring(ast.parse(mutant.read_text(encoding="utf-8"))) or ""
    fields = (line.partition(": ") for line in docstring.splitlines() if ": " in line)
    return {name: value for name, _, value in fields if name in ("property", "told", "tier")}


def name_of(mutant: Path) -> str:
    return f"{mutant.parent.name}-{mutant.stem}"


def told_what_is_wrong(mutant: Path, folder: Path, call_seconds: float) -> None:
    exercise, task = TASKS[mutant.parent.name]
    solution = (SOLUTIONS / f"{exercise.id}.py").read_text(encoding="utf-8")
    (folder / f"{exercise.id}.py").write_text(solution + "\n\n" + mutant.read_text(encoding="utf-8"))

    *before, result = check(task.id, folder=folder, call_seconds=call_seconds).results

    expected = expectation(mutant)
    assert (result.status, result.property_name) == ("failed", expected["property"]), result.message
    assert expected["told"] in result.message
    assert result.call.partition("(")[0] in task.functions
    assert all(other.status == "passed" for other in before)
    assert bool(result.rides) == (task.rides is not None)
    for trace in result.rides.values():
        assert_plays(trace)


def assert_plays(trace: Trace) -> None:
    """As it comes out of a file, in the elevator (which a machine that only runs kernels need not have)."""
    from lessonlib.viz.ride import Ride

    assert Ride.from_trace(Trace.from_dict(json.loads(json.dumps(trace.to_dict()))), "").num_steps


@pytest.mark.parametrize("mutant", [path for path in MUTANTS if path not in KERNELS], ids=name_of)
def test_mutant_is_told_what_is_wrong(mutant: Path, tmp_path: Path) -> None:
    told_what_is_wrong(mutant, tmp_path, call_seconds=1.0)


@pytest.mark.parametrize("mutant", KERNELS, ids=name_of)
def test_kernel_mutant_is_told_what_is_wrong(tier: str, mutant: Path, tmp_path: Path) -> None:
    needed = expectation(mutant).get("tier", tier)
    if needed != tier:
        needs.TIERS[needed].skip()
    told_what_is_wrong(mutant, tmp_path, CALL_SECONDS)


@pytest.mark.parametrize("task", [task for _, task in TASKS.values()], ids=lambda task: task.id)
def test_every_property_rejects_some_mutant(task) -> None:
    gallery = [path for path in MUTANTS if path.parent.name == task.id]
    assert len(gallery) >= 5
    rejecting = {expectation(path)["property"] for path in gallery}
    assert set(task.promises) <= rejecting
