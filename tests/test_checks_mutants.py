"""Every plausible wrong answer is rejected, by the property and with the words that were meant for it.

Each mutant in `solutions/mutants/` says what its mistake is, which property rejects it, a piece of what the student
reads, and the tier that can tell, where not every tier can.
"""

from __future__ import annotations

import json
from pathlib import Path

import needs
import pytest
from command import lesson

from lessonlib.checks import EXERCISES, check
from lessonlib.checks.mutants import Mutant, read_all
from lessonlib.checks.runner import CALL_SECONDS
from lessonlib.checks.spec import PYTHON
from lessonlib.errors import CourseError
from lessonlib.trace import Trace

SOLUTIONS = Path(__file__).parents[1] / "solutions"
GALLERY = read_all(SOLUTIONS / "mutants")
MUTANTS = [each for of_task in GALLERY.values() for each in of_task.values()]
TASKS = {task.id: (exercise, task) for exercise in EXERCISES.values() for task in exercise.tasks}
KERNELS = [each for each in MUTANTS if TASKS[each.task][0].tier != PYTHON]


def name_of(mutant: Mutant) -> str:
    return f"{mutant.task}-{mutant.name}"


def told_what_is_wrong(mutant: Mutant, folder: Path, call_seconds: float) -> None:
    exercise, task = TASKS[mutant.task]
    (folder / f"{exercise.id}.py").write_text(mutant.file(SOLUTIONS), encoding="utf-8")

    *before, result = check(task.id, folder=folder, call_seconds=call_seconds).results

    assert (result.status, result.property_name) == ("failed", mutant.property), result.message
    assert mutant.message in result.message
    assert result.call.partition("(")[0] in task.functions
    assert all(other.status == "passed" for other in before)
    assert bool(result.rides) == (task.rides is not None)
    for trace in result.rides.values():
        assert_plays(trace)


def assert_plays(trace: Trace) -> None:
    """As it comes out of a file, in the elevator (which a machine that only runs kernels need not have)."""
    from lessonlib.viz.ride import Ride

    assert Ride.from_trace(Trace.from_dict(json.loads(json.dumps(trace.to_dict()))), "").num_steps


@pytest.mark.parametrize("mutant", [each for each in MUTANTS if each not in KERNELS], ids=name_of)
def test_mutant_is_told_what_is_wrong(mutant: Mutant, tmp_path: Path) -> None:
    told_what_is_wrong(mutant, tmp_path, call_seconds=1.0)


@pytest.mark.parametrize("mutant", KERNELS, ids=name_of)
def test_kernel_mutant_is_told_what_is_wrong(tier: str, mutant: Mutant, tmp_path: Path) -> None:
    needed = mutant.tier or tier
    if needed != tier:
        needs.TIERS[needed].skip()
    told_what_is_wrong(mutant, tmp_path, CALL_SECONDS)


@pytest.mark.parametrize("task", [task for _, task in TASKS.values()], ids=lambda task: task.id)
def test_every_property_rejects_some_mutant(task) -> None:
    gallery = GALLERY[task.id].values()
    assert len(gallery) >= 5, f"{task.id}.toml has {len(gallery)} mutants: write five or more"
    idle = set(task.promises) - {mutant.property for mutant in gallery}
    assert not idle, f"no mutant in {task.id}.toml is rejected by {idle}"


def test_a_mutant_is_the_solution_but_for_its_edits() -> None:
    right = (SOLUTIONS / "ex03.py").read_text(encoding="utf-8").splitlines()
    wrong = GALLERY["ex03.3"]["double_free"].file(SOLUTIONS).splitlines()
    changed = [line.strip() for line in wrong if line not in right]
    assert changed == ['free = release(free, last["table"] + last["table"][-1:])']
    assert not [line for line in wrong if "# >>>" in line or "# stub" in line or "# <<<" in line]


SAID = 'mistake = "It."\nproperty = "p"\nmessage = "m"\n'


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ("edits = [{old = 'x = 1', new = ''}]", "mutant ex03.1 it: these lines stand 0 times in ex03.1"),
        ("edits = [{old = 'return free', new = ''}]", "stand 0 times"),  # a part of a line
        ("edits = [{old = '# >>> solution', new = ''}]", "stand 4 times"),
        (
            "edits = [{old = 'return free, None', new = ''}, {old = '    return free, None', new = 'x'}]",
            "two edits change line",
        ),
        ("body = 'return free'", "function has to be one of allocate, append, release, free_list, not ''"),
        ("body = 'return free'\nfunction = 'admit'", "not 'admit'"),
        ("", "ex03.1.toml: it: Value error, give either edits or a body"),
        ("helpers = 'import re'\nedits = [{old = 'x', new = 'y'}]", "function and helpers go with a body"),
        ("edits = [{old = 'x'}]", "ex03.1.toml: it edits.0.new: Field required"),
        ("old = 'x'", "ex03.1.toml: it old: Unexpected keyword argument"),
        ("old = x", "is no TOML"),
        ("body = 'x'\nfunction = 'append'\n[[other]]\nold = 'x'", "ex03.1.toml: other should be a table"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(changes: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "ex03.1.toml").write_text(f"[it]\n{SAID}{changes}\n")
    with pytest.raises(CourseError) as refused:
        read_all(tmp_path)["ex03.1"]["it"].file(SOLUTIONS)
    assert complaint in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_the_command_lists_and_prints_mutants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"ex03.3  {len(GALLERY['ex03.3'])}\n" in lesson("mutant").stdout
    assert "double_free " in lesson("mutant", "ex03.3").stdout
    whole = lesson("mutant", "ex03.3", "double_free").stdout
    assert whole.startswith("# Frees the table when it throws a request out, and its last block again.\n")
    compile(whole, "double_free.py", "exec")
    assert "did you mean ex03.1 or ex03.2 or ex03.3 or ex03.4?" in lesson("mutant", "ex03").stderr
    assert "did you mean ex03.3?" in lesson("mutant", "ex3.3").stderr
    assert "did you mean double_free?" in lesson("mutant", "ex03.3", "doublefree").stderr

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lessonlib.layout.clone", lambda: None)
    refused = lesson("mutant")
    assert refused.returncode == 2
    assert refused.stderr == (
        "lesson: error: no folder solutions/mutants here: a clone of the course has it, "
        "a copy that is handed out has not\n"
    )
