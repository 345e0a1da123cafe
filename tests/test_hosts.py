"""Notebooks where nobody set the course up. `tests/test_colab.py` runs one on a stand-in of such a host."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lessonlib import hosts
from lessonlib.errors import CourseError


@pytest.fixture
def colab(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Google Colab's module, which notes what it is asked for."""
    calls: list[str] = []
    package, output = ModuleType("google.colab"), ModuleType("google.colab.output")
    output.enable_custom_widget_manager = lambda: calls.append("widgets")  # type: ignore[attr-defined]
    package.output = output  # type: ignore[attr-defined]
    for module in (package, output):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def test_where_the_course_is_nothing_is_done_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(np, "__version__", "1.0")
    hosts.prepare(False)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_colab_is_asked_for_widgets_each_time_a_kernel_starts(
    colab: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    hosts.prepare(True)
    assert (tmp_path / "exercises" / "ex01.py").is_file()
    assert (tmp_path / "rides" / "01_the_elevator_that_waits.json.gz").is_file()
    assert "Beside this notebook lie 7 exercises" in capsys.readouterr().out
    hosts.prepare(False)
    assert colab == ["widgets", "widgets"]
    assert capsys.readouterr() == ("", "")


def test_a_notebook_in_a_course_has_its_exercises_already(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebooks = Path(__file__).parents[1] / "notebooks"
    monkeypatch.chdir(notebooks)
    hosts.prepare(True)
    assert not (notebooks / "exercises").exists()
    assert "exercises" not in capsys.readouterr().out


def test_what_was_loaded_in_an_older_version_wants_another_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert hosts.outdated() == []
    monkeypatch.setattr(np, "__version__", "1.0")
    with pytest.raises(
        CourseError, match=r"numpy was loaded before .*: restart the kernel, then run this again"
    ):
        hosts.prepare(True)
    assert (tmp_path / "exercises").is_dir()
