"""JupyterLab in a real Chromium: each notebook opens, runs, and its widget is played, scrubbed and typed at.

Of a notebook one widget is left and what it builds on: `make nbval` runs all of it. The code is the notebook's own.
"""

from __future__ import annotations

import ast
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from test_viz_browser import keep_page

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
WIDGETS = re.compile(r"^(Elevator|explorer|MemoryFilm)\(|^live = LiveElevator\(", re.M)
LIVE = "live = LiveElevator("
START, RUN = 120, 240  # seconds; a busy machine takes its time

pytestmark = pytest.mark.browser


def cut(path: Path) -> Any:
    """A notebook's title, its live elevator or else its first widget, and the cells that this one builds on."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    live = [cell for cell in code if LIVE in cell.source]
    widgets = live or [cell for cell in code if WIDGETS.search(cell.source)] or code
    kept = [widgets[0]]
    for cell in reversed(code[: code.index(widgets[0])]):
        wanted = set().union(*(names(other, ast.Load) - names(other, ast.Store) for other in kept))
        if names(cell, ast.Store) & wanted:
            kept.insert(0, cell)
    for cell in kept:
        cell.outputs, cell.execution_count = [], None
    notebook.cells = [notebook.cells[0], *kept]
    return notebook


def names(cell: Any, what: type) -> set[str]:
    """The names that a cell uses (`ast.Load`) or makes (`ast.Store`)."""
    found = set()
    for node in ast.walk(ast.parse(cell.source.replace("%pip", "pass  #"))):  # a line that is Jupyter's own
        if isinstance(node, ast.Name) and isinstance(node.ctx, what):
            found.add(node.id)
        elif what is ast.Store and isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif what is ast.Store and isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return found


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[str]:
    """A JupyterLab of its own over cut copies of the notebooks; its address."""
    folder = tmp_path_factory.mktemp("lab")
    for path in NOTEBOOKS:
        nbformat.write(cut(path), folder / path.name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    homes = {name: str(folder / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR")}
    homes["JUPYTERLAB_WORKSPACES_DIR"] = str(folder / "workspaces")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--ip=127.0.0.1", "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"]
    command += ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env={**os.environ, **homes}, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/api/status", server, folder / "lab.log")
        yield address
    finally:
        server.terminate()
        server.wait(20)


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + START
    while True:
        try:
            urllib.request.urlopen(address, timeout=2)
            return
        except OSError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)


class Notebook:
    """One notebook open in JupyterLab, as a reader has it."""

    def __init__(self, browser: Any, lab: str, name: str) -> None:
        self.lab, self.name = lab, name
        self.context = browser.new_context(viewport={"width": 1100, "height": 1300})
        self.page = self.context.new_page()
        self.page.set_default_timeout(START * 1000)
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        self.page.goto(f"{lab}/lab/tree/{name}?reset")
        self.page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for(timeout=START * 1000)
        self.page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").first.wait_for(
            timeout=START * 1000
        )

    def run_all(self) -> None:
        """Run the cells as a reader does; once more where JupyterLab lost the first try to a starting kernel."""
        self.page.locator(".jp-StatusBar-TextItem").filter(has_text=re.compile(r"\| Idle$")).wait_for()
        prompts = self.page.locator(".jp-CodeCell .jp-InputArea-prompt")
        for _ in range(5):
            self.page.get_by_role("menuitem", name="Run", exact=True).click()
            self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
            end = time.monotonic() + 3
            while time.monotonic() < end and prompts.last.inner_text() == "[ ]:":
                self.page.wait_for_timeout(50)
            if prompts.last.inner_text() != "[ ]:":
                break
        prompts.last.filter(has_text=re.compile(r"\[\d+\]")).wait_for(timeout=RUN * 1000)
        assert self.page.locator(".jp-OutputArea-output[data-mime-type*='error']").count() == 0

    def close(self) -> None:
        """Shut the kernel down as well: the next notebook wants the memory."""
        self.context.close()
        self.lose_kernel()

    def lose_kernel(self) -> None:
        with urllib.request.urlopen(f"{self.lab}/api/sessions") as answer:
            for session in json.load(answer):
                request = urllib.request.Request(f"{self.lab}/api/sessions/{session['id']}", method="DELETE")
                urllib.request.urlopen(request)


@pytest.fixture
def opened(browser, lab) -> Iterator:
    """`opened(name)` opens and runs a notebook; at the end there may have been no error in the console."""
    notebooks: list[Notebook] = []

    def open_one(name: str) -> Notebook:
        notebooks.append(Notebook(browser, lab, name))
        notebooks[-1].run_all()
        return notebooks[-1]

    yield open_one
    for notebook in notebooks:
        keep_page(notebook.page, f"lab-{notebook.name[:2]}")
        notebook.close()
        assert notebook.errors == []


# At every run one with a stored ride; live ones have tests of their own. `make prove` opens them all.
ALWAYS = ("01",)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=() if path.stem[:2] in ALWAYS else pytest.mark.prove, id=path.stem[:2])
        for path in NOTEBOOKS
    ],
)
def test_a_notebook_opens_runs_and_its_widget_plays(opened, path: Path) -> None:
    notebook = opened(path.name)
    page = notebook.page
    elevator = page.locator(".jp-OutputArea .elevator").last  # a cell that it builds on may show one too
    code = "\n".join(cell.source for cell in cut(path).cells)
    if not WIDGETS.search(code):
        assert page.locator(".elevator").count() == 0
    elif LIVE in code:
        ride_live(page, elevator)
    else:
        play(page, elevator)


def test_a_ride_goes_on_when_its_kernel_is_gone(opened) -> None:
    notebook = opened(next(path.name for path in NOTEBOOKS if path.stem.startswith("01")))
    assert notebook.errors == []
    notebook.lose_kernel()
    play(notebook.page, notebook.page.locator(".jp-OutputArea .elevator").first)
    notebook.errors.clear()  # JupyterLab itself tells the console that its kernel is gone


def place(elevator: Any) -> tuple[float, float]:
    """Where a stored ride stands, and its end, in steps or seconds."""
    found = re.search(r"([\d.,]+) of ([\d.,]+)", elevator.locator(".elevator-place").inner_text())
    assert found
    return tuple(float(number.replace(",", "")) for number in found.groups())  # type: ignore[return-value]


def play(page: Any, elevator: Any) -> None:
    """Buttons, keys, slider and Gantt of a stored ride, as they are in JupyterLab."""
    elevator.scroll_into_view_if_needed()
    elevator.get_by_role("button", name="One step forward").click()
    first, end = place(elevator)
    assert 0 < first < end
    elevator.focus()
    page.keyboard.press("End")
    assert place(elevator) == (end, end)
    page.keyboard.press("ArrowLeft")
    assert first < place(elevator)[0] < end
    page.keyboard.press("Home")
    assert place(elevator) == (0, end)
    page.keyboard.press("Space")
    elevator.get_by_role("button", name="Pause", exact=True).wait_for()
    elevator.locator(".elevator-place").filter(has_not_text=re.compile(r"^(step )?[0.]+ of")).wait_for()
    page.keyboard.press("Space")
    elevator.get_by_role("button", name="Play", exact=True).wait_for()
    elevator.get_by_role("slider", name="Step").fill(str(end / 2))
    halfway, _ = place(elevator)
    assert end / 3 < halfway <= end / 2
    elevator.locator(".elevator-caption").filter(has_text=re.compile("^(Step|At) ")).wait_for()
    gantt = elevator.locator(".elevator-gantt")
    if gantt.count():
        box = gantt.bounding_box()
        gantt.click(position={"x": box["width"] - 10, "y": 30})
        assert place(elevator)[0] > halfway


def ride_live(page: Any, elevator: Any) -> None:
    """A reader boards, the kernel answers, the rider is told something."""
    elevator.scroll_into_view_if_needed()
    riders = elevator.locator(".elevator-rider")
    before = riders.count()
    elevator.get_by_role("textbox").fill("What is rain? <b>Say</b>")
    page.keyboard.press("Enter")
    mine = riders.filter(has_text="What is rain? <b>Say</b>")
    mine.wait_for(timeout=RUN * 1000)
    assert riders.count() == before + 1
    elevator.get_by_role("button", name="Run", exact=True).click()
    mine.locator(".elevator-words").filter(has_text=re.compile(r"\w")).wait_for(timeout=RUN * 1000)
    elevator.get_by_role("button", name="Pause", exact=True).click()
    elevator.get_by_role("button", name="Run", exact=True).wait_for(timeout=RUN * 1000)
    slots = elevator.get_by_role("spinbutton", name="slots")
    if slots.count():
        slots.fill("2")
        slots.press("Enter")
        elevator.locator(".elevator-place").filter(has_text="no step yet").wait_for()
        elevator.get_by_role("button", name="One step", exact=True).click()
        elevator.locator(".elevator-caption").filter(has_text="2 of 2 on board").wait_for()
