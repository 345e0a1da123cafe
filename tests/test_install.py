"""Setting up where something is missing: one line that says what, and nothing half-made."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import needs
import pytest

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "install" / "locks").glob("*.txt"))
SILENT_INDEX = "http://127.0.0.1:9/simple"  # the discard port: nothing listens there


def load(name: str) -> ModuleType:
    """A script of install/, which is no package."""
    specification = importlib.util.spec_from_file_location(f"install_{name}", ROOT / "install" / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


install, lock = load("install"), load("lock")


def set_up(venv: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """install.py into a folder, with pip's settings out of reach."""
    settings = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": "",
        "PIP_RETRIES": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PATH": "/usr/bin:/bin",  # no uv
    }
    return subprocess.run(
        [sys.executable, ROOT / "install" / "install.py", "--venv", venv, "--tier", "python"],
        env={**os.environ, **settings, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def last_line(finished: subprocess.CompletedProcess[str]) -> str:
    return finished.stderr.strip().splitlines()[-1]


# ----- what may be missing -----


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ((3, 10), "older than 3.11: make setup PYTHON="),
        ((3, 15), "newer than 3.14"),
        ((3, 11), ""),
        ((3, 14), ""),
    ],
)
def test_a_python_outside_the_range_is_named(version: tuple[int, int], words: str) -> None:
    problem = install.unsuitable_python(version)
    assert words in problem
    assert bool(problem) == bool(words)


def test_the_range_of_pythons_is_said_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest, newest = install.OLDEST, install.NEWEST
    assert project["requires-python"] == f">={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"
    assert tuple(f"3.{minor}" for minor in range(oldest[1], newest[1] + 1)) == lock.PYTHONS


def test_an_index_out_of_reach_leaves_nothing_behind(tmp_path: Path) -> None:
    finished = set_up(tmp_path / "venv", PIP_INDEX_URL=SILENT_INDEX)
    assert finished.returncode == 2
    assert last_line(finished).startswith("setup: no package index answers")
    assert not (tmp_path / "venv").exists()


def test_an_index_without_a_package_names_it(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    finished = set_up(tmp_path / "venv", PIP_INDEX_URL=f"file://{tmp_path}/index")
    assert finished.returncode == 2
    assert re.match(
        r"setup: the package index has no \w+ for Python 3\.\d+ on this machine", last_line(finished)
    )
    assert not (tmp_path / "venv").exists()


@needs.ROOT.unless(os.geteuid() == 0)  # a full disk is a small one mounted here
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    on_a_small_disk = f'mount -t tmpfs -o size=4m none {tmp_path} && "$@"; ls {tmp_path}'
    command = ["unshare", "--mount", "sh", "-c", on_a_small_disk, "sh", sys.executable]
    command += [str(ROOT / "install" / "install.py"), "--venv", f"{tmp_path}/venv", "--tier", "python"]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if "mount" in mounted.stderr or "unshare" in mounted.stderr:
        needs.MOUNTS.skip()
    assert mounted.stderr.strip().startswith(f"setup: no space on the disk of {tmp_path}/venv")
    assert mounted.stdout == ""


@pytest.mark.parametrize(
    ("printed", "line"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "no space on the disk",
        ),
        ("error: failed to write: No space left on device (os error 28)", "no space on the disk"),
        ("error: Failed to fetch\n  Caused by: error sending request for url", "no package index answers"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "not trusted here"),
        ("ERROR: No matching distribution found for torch==2.13.0", "the package index has no torch"),
        (
            "Because torch==2.13.0 has no wheels with a matching platform tag",
            "the package index has no torch",
        ),
        ("ERROR: ResolutionImpossible: for help", "installing failed: ERROR: ResolutionImpossible"),
    ],
)
def test_what_pip_and_uv_print_becomes_one_line(printed: str, line: str, tmp_path: Path) -> None:
    explained = install.explain(printed, tmp_path)
    assert line in explained
    assert "\n" not in explained


def test_a_folder_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    finished = set_up(tmp_path)
    assert (finished.returncode, (tmp_path / "thesis.txt").read_text()) == (2, "mine")
    assert "is no virtual environment" in last_line(finished)


def test_another_python_than_the_environments_is_refused(tmp_path: Path) -> None:
    """`make setup PYTHON=python3.13` after a set-up with 3.11 went on with 3.11 and said nothing."""

    def compare() -> subprocess.CompletedProcess[str]:
        words = ["--venv", str(tmp_path / "venv"), "--tier", "python", "--only-compare"]
        return subprocess.run(
            [sys.executable, ROOT / "install" / "install.py", *words], capture_output=True, text=True
        )

    assert compare().returncode == 0
    (tmp_path / "venv").mkdir()
    settings = tmp_path / "venv" / "pyvenv.cfg"
    settings.write_text("home = /usr/bin\nversion = 3.9.2\n")
    finished = compare()
    assert finished.returncode == 2
    assert re.search(r"venv has Python 3\.9 and PYTHON is 3\.\d+: rm -r .*venv, then", last_line(finished))
    settings.write_text("version_info = 1.2\nversion = {}.{}.{}\n".format(*sys.version_info))
    assert compare().returncode == 0


def test_make_compares_only_a_python_that_was_asked_for(tmp_path: Path) -> None:
    def would_run(*asked: str) -> str:
        command = ["make", "--dry-run", "setup", f"VENV={tmp_path}/venv", *asked]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "--only-compare" in would_run(f"PYTHON={sys.executable}")
    assert "--only-compare" not in would_run()


# ----- the locks -----


def pins(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_a_lock_says_what_it_is_for_and_since_when(path: Path) -> None:
    head = path.read_text().splitlines()[:3]
    assert head[0] == f"# {path.stem}: {lock.TIERS[path.stem].about}."
    assert re.fullmatch(r"# Made by `make lock` on \d{4}-\d\d-\d\d\.", head[2])
    assert all(re.match(r"[\w.-]+==\S+( ; .+)?$", pin) for pin in pins(path))


def test_every_tier_has_a_lock() -> None:
    assert {path.stem for path in LOCKS} == set(lock.TIERS)


@pytest.mark.parametrize("tier", ["python", "gpu"])
def test_the_course_needs_nothing_that_its_lock_lacks(tier: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    wanted = [*project["dependencies"], *optional["test"], *optional["site"]]
    locked = {re.split("==", pin)[0] for pin in pins(lock.lock_file(tier))}
    named = {re.match(r"[\w-]+", each)[0].lower().replace("_", "-") for each in wanted}  # type: ignore[index]
    assert named <= locked


def test_tritons_version_is_torchs_own() -> None:
    """The failure that this folder exists for: a torch that asks for another triton than the lock has."""
    from importlib.metadata import PackageNotFoundError, requires, version

    try:
        needed = [each for each in requires("torch") or () if each.startswith("triton")]
        found = version("triton")
    except PackageNotFoundError:
        needs.TRITON.skip()
    locked = {pin.split(" ;")[0] for pin in pins(lock.lock_file("python"))}
    assert f"triton=={found}" in locked
    for each in needed:  # PyTorch's CPU build asks for none
        assert each.split(";")[0].strip() == f"triton=={found}"


# ----- what a student does not need -----


def test_the_course_runs_on_what_students_install() -> None:
    """What only tests import is no dependency of the course, and the course imports none of it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    instructors = {"pytest", "nbval", "hypothesis", "playwright", "mypy", "ruff", "sphinx", "myst-nb"}
    named = {re.match(r"[\w-]+", each)[0].lower() for each in project["dependencies"]}  # type: ignore[index]
    assert not named & instructors


# ----- other ways in -----


def test_the_containers_and_code_spaces_commands_are_the_readmes() -> None:
    fresh = load("fresh")
    assert fresh.container_lines("RUN")[-1] == "make setup TIER=$TIER"
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"setup", "lab"} <= set(targets)
    assert '"postCreateCommand": "make setup"' in (ROOT / ".devcontainer" / "devcontainer.json").read_text()
    assert any(fresh.is_containers(suite) for suite in fresh.SUITES)
