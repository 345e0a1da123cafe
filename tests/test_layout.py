"""Where the course lies, seen from a clone, from a folder that was started, and from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessonlib import layout, recorded
from lessonlib.checks import solution
from lessonlib.errors import CourseError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def started(tmp_path: Path) -> Path:
    """A course's folder, with another `solutions` above it that is none of its business."""
    folder = tmp_path / "course"
    for name in ("notebooks", "exercises", layout.RESULTS):
        (folder / name).mkdir(parents=True)
    (folder / layout.MANIFEST).write_text("{}")
    (tmp_path / "solutions").mkdir()
    return folder


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """lessonlib as a wheel has it: no clone around it, the course inside it."""
    package = tmp_path / "packages" / "lessonlib"
    (package / "course" / layout.RESULTS).mkdir(parents=True)
    (package / "course" / "exercises").mkdir()
    monkeypatch.setattr(layout, "PACKAGE", package)
    monkeypatch.setattr(layout, "CARRIED", package / "course")
    return package / "course"


def test_a_clone_is_the_course_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert layout.clone() == layout.source() == layout.home() == ROOT
    assert layout.find_folder("exercises") == ROOT / "exercises"
    assert layout.results() == ROOT / "benchmarks" / "results"
    monkeypatch.chdir(ROOT / "notebooks")
    assert layout.find_folder("exercises") == ROOT / "exercises"


def test_a_started_folder_comes_before_the_clone(started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(started / "notebooks")
    assert layout.home() == started
    assert layout.find_folder("exercises") == started / "exercises"
    assert layout.results() == started / layout.RESULTS
    (started / layout.RESULTS / "own.json").write_text('{"rate": 3}')
    assert recorded.load("own") == {"rate": 3}


def test_what_lies_above_a_course_is_none_of_it(
    started: Path, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(started)
    with pytest.raises(CourseError, match="no folder solutions in"):
        layout.find_folder("solutions")
    monkeypatch.chdir(started.parent)
    assert layout.find_folder("solutions") == started.parent / "solutions"


def test_what_a_wheel_carries_is_read_and_not_worked_in(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert layout.clone() is None
    assert layout.home() == layout.source() == installed
    assert layout.results() == installed / layout.RESULTS
    with pytest.raises(CourseError, match="`lesson start` makes"):
        layout.find_folder("exercises")
    with pytest.raises(CourseError, match=r"no worked answer at solutions/ex01\.py: ask whoever teaches"):
        solution("ex01.1")
    (installed / "solutions").mkdir()
    (installed / "solutions" / "ex01.py").write_bytes((ROOT / "solutions" / "ex01.py").read_bytes())
    assert "def static_utilization" in solution("ex01.1")


def test_answers_in_a_clone_are_not_handed_out(tmp_path: Path) -> None:
    for name in ("exercises", "solutions", "notebooks"):
        (tmp_path / name).mkdir()
    (tmp_path / "solutions" / "ex01.py").write_bytes((ROOT / "solutions" / "ex01.py").read_bytes())
    (tmp_path / "exercises" / "ex01.py").write_text("def drain(lengths, slots):\n    return 'mine'\n")
    (tmp_path / "exercises" / "ex01.new.py").write_text("")
    (tmp_path / "notebooks" / "Untitled.ipynb").write_text("{}")
    files = layout.handed_out(tmp_path)
    assert set(files) == {"exercises/ex01.py", "solutions/ex01.py"}
    assert files["exercises/ex01.py"] == (ROOT / "exercises" / "ex01.py").read_bytes()
    assert set(layout.handed_out(tmp_path, with_solutions=False)) == {"exercises/ex01.py"}


def test_everything_is_handed_out() -> None:
    files = layout.handed_out(ROOT)
    numbered = {f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    assert {name for name in files if name.endswith(".ipynb")} == numbered
    assert {f"exercises/ex0{number}.py" for number in range(1, 7)} < set(files)
    assert {name.partition("/")[2] for name in files if name.startswith("exercises/")} == {
        name.partition("/")[2] for name in files if name.startswith("solutions/")
    }
    results = {path.name for path in (ROOT / layout.RESULTS).iterdir()}
    assert {name.rpartition("/")[2] for name in files if name.startswith(layout.RESULTS)} == results
    assert not [name for name in files if "mutants" in name]
