"""What a wheel of the course carries, built from a copy of the clone. `install/wheel_check.py` installs one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from lessonlib import layout

ROOT = Path(__file__).parents[1]
BUILT = "lessonlib/course/"


def build(tree: Path, what: str, out: Path, without_solutions: str = "") -> Path:
    """Build "wheel" or "sdist" of a tree by the backend that pyproject.toml names."""
    program = f"import sys; from setuptools import build_meta; print(build_meta.build_{what}(sys.argv[1]))"
    environment = {**os.environ, "LESSONLIB_WITHOUT_SOLUTIONS": without_solutions}
    done = subprocess.run(
        [sys.executable, "-c", program, str(out)], cwd=tree, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("RECORD")}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A clone in which somebody has answered an exercise, kept a notebook of their own, and run Sphinx."""
    copy = tmp_path_factory.mktemp("tree") / "course"
    skipped = shutil.ignore_patterns(".*", "build", "artifacts", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=skipped)
    with (copy / "exercises" / "ex01.py").open("a") as file:
        file.write("\n# the answer to everything\n")
    shutil.copy(copy / "notebooks" / "00_the_ladder.ipynb", copy / "notebooks" / "Untitled.ipynb")
    (copy / "site" / "__pycache__").mkdir()
    return copy


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory) -> dict[str, bytes]:
    return contents(build(tree, "wheel", tmp_path_factory.mktemp("wheel")))


def test_a_wheel_carries_the_course(wheel: dict[str, bytes]) -> None:
    carried = {name.removeprefix(BUILT): content for name, content in wheel.items() if name.startswith(BUILT)}
    site = {f"site/{path.name}": path.read_bytes() for path in (ROOT / "site").glob("*.*")}
    assert carried == {**layout.handed_out(ROOT), **site}
    assert b"the answer to everything" not in b"".join(carried.values())


def test_a_wheel_has_every_file_of_the_packages(wheel: dict[str, bytes]) -> None:
    ours = [path for package in ("lessonlib", "kernels") for path in (ROOT / package).rglob("*")]
    names = {
        path.relative_to(ROOT).as_posix()
        for path in ours
        if path.is_file() and path.parent.name != "__pycache__"
    }
    assert names == {name for name in wheel if ".dist-info/" not in name and not name.startswith(BUILT)}


def test_the_sources_build_the_same_wheel(tree: Path, wheel: dict[str, bytes], tmp_path: Path) -> None:
    with tarfile.open(build(tree, "sdist", tmp_path)) as archive:
        archive.extractall(tmp_path, filter="data")
    (sources,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert contents(build(sources, "wheel", tmp_path)) == wheel
    assert (tree / "exercises" / "ex01.py").read_text().endswith("# the answer to everything\n")


@pytest.mark.parametrize("what", ["wheel", "sdist"])
def test_worked_answers_are_kept_back_where_the_instructor_says_so(
    what: str, tree: Path, wheel: dict[str, bytes], tmp_path: Path
) -> None:
    """Also from a tree in which a build with them has left its files."""
    built = build(tree, what, tmp_path, without_solutions="1")
    if what == "sdist":
        with tarfile.open(built) as archive:
            names = {name.partition("/")[2]: name for name in archive.getnames()}
            handed = archive.extractfile(names["exercises/ex01.py"])
            assert handed is not None
            assert handed.read() == (ROOT / "exercises" / "ex01.py").read_bytes()
    else:
        names = {name.removeprefix(BUILT): name for name in contents(built)}
    assert "exercises/ex01.py" in names
    assert not [name for name in names if name.startswith(("solutions", "tests"))]
