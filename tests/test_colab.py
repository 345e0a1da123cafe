"""A notebook alone on a stand-in of Google Colab: the host's Python and kernel, its module, and nothing of the course.

What `pip` brings comes from the package index, but for the course's own wheel, which is built here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from test_install import load

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ("00_the_ladder", "01_the_elevator_that_waits", "03_the_paged_kv_cache")
OWN = {
    name: value for name, value in os.environ.items() if name != "PYTHONPATH"
}  # a folder of the course is none
INSTALL_SECONDS = 1800  # torch with CUDA's libraries is some gigabytes
WIDGET = "application/vnd.jupyter.widget-view+json"
MANAGER = "https://example.org/widget-manager"
# As much of the host's module as the course and anywidget touch.
OUTPUT = f"""\
import os
from pathlib import Path
from types import SimpleNamespace

_widgets = SimpleNamespace(_installed_url=None)


def enable_custom_widget_manager():
    _widgets._installed_url = {MANAGER!r}
    with Path(os.environ["COLAB_CALLS"]).open("a") as calls:
        calls.write(f"{{os.getpid()}}\\n")
"""

pytestmark = pytest.mark.prove


class Host:
    """A machine on which a notebook is opened that comes without its course."""

    def __init__(self, folder: Path) -> None:
        self.python, self.calls = folder / "environment" / "bin" / "python", folder / "calls"
        pythons = load("resolve").supported_pythons()
        theirs = next((path for path in pythons if path.endswith("python3.12")), sys.executable)
        self.run(theirs, "-m", "venv", folder / "environment")
        self.run(self.python, "-m", "pip", "install", "--quiet", "ipykernel")
        self.run(self.python, "-m", "ipykernel", "install", "--prefix", folder, "--name", "colab")
        found = self.run(self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
        self.packages = packages = Path(found.strip())
        (packages / "google" / "colab").mkdir(parents=True)
        (packages / "google" / "colab" / "__init__.py").touch()
        (packages / "google" / "colab" / "output.py").write_text(OUTPUT)
        (packages / "colab.pth").write_text(
            "import google.colab\n"
        )  # the host loads it before a notebook begins
        wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder / "dist"]
        self.run(*wheel, ROOT)
        self.variables = {
            "JUPYTER_PATH": str(folder / "share" / "jupyter"),
            "COLAB_CALLS": str(self.calls),
            "PIP_FIND_LINKS": str(folder / "dist"),
        }

    def run(self, *command: str | Path) -> str:
        words = [str(word) for word in command]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def forget_the_course(self) -> None:
        self.run(self.python, "-m", "pip", "uninstall", "--yes", "continuous-batching-course")
        for name in (
            "lessonlib",
            "kernels",
        ):  # what was compiled there stays otherwise, and is found as a package
            shutil.rmtree(self.packages / name, ignore_errors=True)

    def execute(self, path: Path) -> nbformat.NotebookNode:
        """Run a notebook whole, in its folder. Raises `CalledProcessError` where a cell fails."""
        code = (
            "import nbformat, sys; from nbclient import NotebookClient; path = sys.argv[1];"
            "notebook = nbformat.read(path, as_version=4);"
            f"NotebookClient(notebook, kernel_name='colab', timeout={INSTALL_SECONDS}).execute();"
            "nbformat.write(notebook, path)"
        )
        command = [sys.executable, "-c", code, path.name]
        done = subprocess.run(
            command, cwd=path.parent, env={**OWN, **self.variables}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return Host(tmp_path_factory.mktemp("host"))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_lone_notebook_brings_its_course_and_runs_whole(host: Host, tmp_path: Path, name: str) -> None:
    if name != NOTEBOOKS[0]:
        host.forget_the_course()
    source = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    for cell in source.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    path = tmp_path / f"{name}.ipynb"
    nbformat.write(source, path)
    host.calls.unlink(missing_ok=True)

    ran = host.execute(path)

    assert len(set(host.calls.read_text().splitlines())) == 1
    assert (tmp_path / "exercises" / "ex01.py").is_file()
    code = [cell for cell in ran.cells if cell.cell_type == "code"]
    assert "Beside this notebook lie 8 exercises" in json.dumps(code[0].outputs)
    shown = [output for cell in code for output in cell.outputs if "data" in output]
    widgets = [output for output in shown if WIDGET in output.data]
    # The host shows ipywidgets' own without a manager; the course's elevators say where theirs is.
    assert any(MANAGER in json.dumps(output.metadata) for output in widgets)

    again = host.execute(path)  # a new kernel, the course there
    assert next(cell for cell in again.cells if cell.cell_type == "code").outputs == []
    assert len(set(host.calls.read_text().splitlines())) == 2
