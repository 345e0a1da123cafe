"""Notebooks where the course was not set up. `tests/test_colab.py` runs one on a stand-in of such a host."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import nbformat
import numpy as np
import pytest
from test_install import load

import lessonlib
from lessonlib import hosts
from lessonlib.errors import CourseError

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
written = load("hosts")


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
    assert "Beside this notebook lie 8 exercises" in capsys.readouterr().out
    hosts.prepare(False)
    assert colab == ["widgets", "widgets"]
    assert capsys.readouterr() == ("", "")


def test_a_folder_with_the_courses_name_is_not_the_course(tmp_path: Path) -> None:
    """`pip uninstall` leaves compiled files behind, and what has only the name cannot be imported from."""
    (tmp_path / "lessonlib" / "__pycache__").mkdir(parents=True)
    looks = written.first_cell().partition("if is_new")[0] + "print(is_new)"
    for folder, expected in ((tmp_path, "True"), (ROOT, "False")):
        without_packages = [sys.executable, "-S", "-c", looks]
        asked = subprocess.run(without_packages, cwd=folder, capture_output=True, text=True, check=True)
        assert asked.stdout.strip() == expected


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


# ----- what install/hosts.py writes -----


def test_one_version_stands_everywhere() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    version = settings["project"]["version"]
    assert lessonlib.__version__ == version
    assert version in written.first_cell()
    assert f"continuous_batching_course-{version}-py3-none-any.whl" in README.read_text(encoding="utf-8")
    assert "{version}" in settings["tool"]["lesson"]["wheel"]


@pytest.mark.parametrize("path", written.NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_begins_with_the_same_cell(path: Path) -> None:
    """Written by `.venv/bin/python install/hosts.py`."""
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert code[0].source == written.first_cell(), "run `.venv/bin/python install/hosts.py`"
    assert code[0].outputs == []


def test_the_buttons_open_the_repository_that_pyproject_names() -> None:
    text = README.read_text(encoding="utf-8")
    assert written.with_buttons(text) == text, "run `.venv/bin/python install/hosts.py`"
    hosts_named = re.compile(r"https://(?:colab|kaggle|www\.kaggle)[^)\s]*")
    outside = text.replace(written.buttons(), "")
    for page in [outside, *(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))]:
        assert not hosts_named.search(page)
    assert written.buttons().count(".ipynb)") == 2 * len(written.NOTEBOOKS)


def test_a_cell_that_is_out_of_step_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "01.ipynb"
    path.write_bytes(written.NOTEBOOKS[1].read_bytes())
    before = nbformat.read(path, as_version=4).cells
    assert not written.write_cell(path)
    settings = written.project()
    settings["project"]["version"] = "1.2.3"
    monkeypatch.setattr(written, "project", lambda: settings)
    assert written.write_cell(path)
    changed, *rest = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert "continuous-batching-course==1.2.3\n" in changed.source
    assert rest == [cell for cell in before if cell.cell_type == "code"][1:]
    first = next(index for index, cell in enumerate(before) if cell.cell_type == "code")
    nbformat.write(nbformat.v4.new_notebook(cells=before[:first] + before[first + 1 :]), path)
    assert written.write_cell(path)
    assert [cell.source for cell in nbformat.read(path, as_version=4).cells][2:] == [
        cell.source for cell in before[2:]
    ]
