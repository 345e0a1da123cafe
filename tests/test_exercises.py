"""The exercise files: made from the solutions, solvable, and kind while they are empty."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
from pathlib import Path

import pytest
from conftest import KERNEL_TIER

from lessonlib import regions
from lessonlib.checks import EXERCISES, check, hint, own, solution, stubs
from lessonlib.errors import CourseError

ROOT = Path(__file__).parents[1]
SOLUTIONS, HANDED_OUT = ROOT / "solutions", ROOT / "exercises"


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A folder with the exercises as they are handed out."""
    stubs.write(SOLUTIONS, tmp_path)
    return tmp_path


@pytest.fixture
def handed_out(tmp_path: Path) -> Path:
    """The exercises as committed: a student's own answers in the work tree are no drift."""
    archive = subprocess.run(["git", "archive", "HEAD", "exercises"], cwd=ROOT, capture_output=True)
    if archive.returncode:  # no git here: what lies there is what was handed out
        return HANDED_OUT
    subprocess.run(["tar", "-x", "-C", tmp_path], input=archive.stdout, check=True)
    return tmp_path / "exercises"


def test_stubs_are_in_step_with_the_solutions(handed_out: Path) -> None:
    assert stubs.drifted(SOLUTIONS, handed_out) == []


def test_a_drifted_stub_is_named_and_mended(empty: Path, monkeypatch, capsys) -> None:
    (empty / "exercises").mkdir()
    (empty / "solutions").symlink_to(SOLUTIONS)
    monkeypatch.chdir(empty)
    assert stubs.main(["--check"]) == 1
    assert "ex01.py is not what solutions/ex01.py gives" in capsys.readouterr().out
    assert stubs.main([]) == 0
    assert stubs.main(["--check"]) == 0


def test_an_answer_is_not_overwritten(empty: Path) -> None:
    mine = "def static_utilization(lengths, slots):\n    return 1.0\n"
    (empty / "ex01.py").write_text(mine)
    with pytest.raises(CourseError, match=r"ex01\.py holds an answer"):
        stubs.write(SOLUTIONS, empty)
    assert (empty / "ex01.py").read_text() == mine
    assert stubs.write(SOLUTIONS, empty, force=True) == ["ex01.py"]


def test_a_task_that_is_new_in_a_solution_is_no_answer(empty: Path) -> None:
    handed_out = (empty / "ex02.py").read_text()
    before = handed_out[: handed_out.index("\n\ndef continuous_batching")]
    (empty / "ex02.py").write_text(before)
    assert stubs.write(SOLUTIONS, empty) == ["ex02.py"]
    assert (empty / "ex02.py").read_text() == handed_out

    solved = before.replace('raise NotImplementedError("ex02.2: step is not written yet")', "return 1")
    for answered in (solved, "def refill(:"):
        (empty / "ex02.py").write_text(answered)
        with pytest.raises(CourseError, match=r"ex02\.py holds an answer"):
            stubs.write(SOLUTIONS, empty)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("# >>> solution\nx = 1\n# <<< solution\n", "line 2: a region begins with"),
        ("# >>> solution\n# stub: pass\n", "line 1: the region is never closed"),
        ("# <<< solution\n", "line 1: a region closes that never opened"),
        ("# >>> solution\n# stub: pass\n# >>> solution\n", "line 3: a region opens inside the one of line 1"),
    ],
)
def test_a_broken_region_is_told_with_its_line(source: str, told: str) -> None:
    with pytest.raises(CourseError, match=told):
        regions.stub_of(source)


def test_stubs_hold_nothing_of_the_solution() -> None:
    for text in regions.stubs(SOLUTIONS).values():
        assert "solution" not in text
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef):
                docstring, stub = node.body
                assert isinstance(docstring, ast.Expr)
                assert isinstance(stub, ast.Raise)


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=lambda exercise: exercise.id)
def test_the_spec_on_top_names_what_is_checked(exercise) -> None:
    docstring = ast.get_docstring(ast.parse((HANDED_OUT / f"{exercise.id}.py").read_text(encoding="utf-8")))
    assert docstring is not None
    told: dict[str, list[str]] = {}
    for line in docstring.splitlines():
        if re.match(r"ex\d\d\.\d ", line):
            properties = told.setdefault(line, [])
        elif line.startswith("  - "):
            properties.append(line.removeprefix("  - "))
    due = {f"{task.id} {', '.join(task.functions)}": list(task.promises) for task in exercise.tasks}
    assert told == due


@pytest.mark.parametrize(
    "task", [task for exercise in EXERCISES.values() for task in exercise.tasks], ids=lambda t: t.id
)
def test_each_task_has_a_file_that_is_named_after_its_function(task) -> None:
    module = importlib.import_module(f"lessonlib.checks.{task.id.partition('.')[0]}.{task.function}")
    assert task in vars(module).values()
    assert (module.__doc__ or "").startswith(f"{task.id}: ")


@pytest.mark.parametrize(
    "task", [task for exercise in EXERCISES.values() for task in exercise.tasks], ids=lambda t: t.id
)
def test_hints_and_the_solution_are_there_on_request(task) -> None:
    first, second, third = (hint(task.id, number) for number in (1, 2, 3))
    assert len({first, second, third}) == 3
    assert len(first) < 250
    worked = solution(task.id, SOLUTIONS)
    assert not any(line in worked for line in ("stub:", "solution"))
    defined = {node.name for node in ast.parse(worked).body if isinstance(node, ast.FunctionDef)}
    assert set(task.functions) <= defined


def test_what_has_no_hint_or_solution_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match=r"no hints for 'ex99.1': there are some for ex01.1, .*ex06.3"):
        hint("ex99.1")
    with pytest.raises(CourseError, match=r"no hint 4 for ex01.1: give 1 to 3"):
        hint("ex01.1", 4)
    with pytest.raises(CourseError, match=r"unknown task 'ex01': there is ex01.1"):
        solution("ex01")
    with pytest.raises(CourseError, match=r"no worked answer at .*: ask whoever teaches the course"):
        solution("ex01.1", tmp_path)


def test_every_solution_passes() -> None:
    report = check(folder=SOLUTIONS)
    not_here = [result for result in report.results if result.status == "not checked here"]
    assert {result.status for result in report.results if result not in not_here} == {"passed"}, str(report)
    assert [result.tier for result in not_here] == ([] if KERNEL_TIER == "gpu" else ["gpu"])
    assert report.exit_code == 0


def test_every_stub_is_not_written_yet(empty: Path) -> None:
    report = check(folder=empty)
    assert {result.status for result in report.results} == {"not written"}, str(report)
    assert (report.exit_code, report.exit_code_so_far) == (1, 0)
    for result in report.results:
        begins, line, _, name = re.fullmatch(
            r"(.*)Your lines go to line (\d+)( of )(.*)\.", result.sentence
        ).groups()
        written = (empty / name).read_text(encoding="utf-8").splitlines()[int(line) - 1]
        exercise = EXERCISES[result.id.partition(".")[0]]
        first = next((each.drawn_for for each in exercise.tasks if each.id == result.id), "")
        assert begins == (f"It calls {first}, which is not written yet. " if first else "")
        assert (
            'NotImplementedError("' + (f"{exercise.id}.1: {first} is" if first else f"{result.id}:")
        ) in written


def test_a_students_own_function_is_there_once_it_passes(empty: Path) -> None:
    assert own("ex02.1", empty) is None
    refill = own("ex02.1", SOLUTIONS)
    assert refill is not None
    assert refill.__name__ == "refill"
    with pytest.raises(CourseError, match=r"unknown exercise 'ex02.9'"):
        own("ex02.9", SOLUTIONS)
