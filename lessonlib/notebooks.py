"""What notebooks need around their cells: showing a source, and storing them fit for a repository.

Stored outputs are kept; widget state and traces of the machine are left out. What an elevator plays is kept in a
file beside the notebook, for the site.

python -m lessonlib.notebooks notebooks/*.ipynb
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from tqdm import tqdm

from lessonlib.errors import CourseError
from lessonlib.files import write_whole
from lessonlib.unrun import reason
from lessonlib.viz import elevator, film
from lessonlib.viz.widget import to_json

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def show_source(function: Callable) -> None:
    """Print the library's own lines, so that a notebook never holds a second copy of them.

    A Triton kernel is shown as the Python function that it was made from.
    """
    print(textwrap.dedent(inspect.getsource(getattr(function, "fn", function))).rstrip())


def execute(path: Path, cell_timeout: int = 120) -> None:
    """Run a notebook from its own folder and write it back with its outputs, and its rides beside it.

    Raises where a cell fails, or could not be run on this machine.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    client = NotebookClient(
        notebook,
        timeout=cell_timeout,
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=True,
    )
    client.execute()
    if missing := next(filter(None, (reason(cell.get("outputs", ())) for cell in notebook.cells)), ""):
        raise CourseError(f"{path.name} cannot be executed here: {missing}; it was left as it is")
    _save_rides(path, recorded_rides(client))
    tidy(notebook)
    nbformat.write(notebook, path)


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Number cells in order and drop what only one session understands."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{place:02d}"
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)


# ----- rides -----


def ride_file(path: Path) -> Path:
    """Where what a notebook's elevators play is kept."""
    return path.parent / "rides" / f"{path.stem}.json.gz"


def ride_key(source: str) -> str:
    """What the ride of a cell is kept under: a cell that has been changed since has none."""
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def load_rides(path: Path) -> dict[str, dict[str, str]]:
    """`ride_key` -> {"widget": its name, "json": its state as the browser takes it}; empty where none was kept."""
    kept = ride_file(path)
    return json.loads(gzip.decompress(kept.read_bytes())) if kept.is_file() else {}


def _save_rides(path: Path, rides: Mapping[str, Mapping[str, str]]) -> None:
    kept = ride_file(path)
    kept.unlink(missing_ok=True)
    if rides:
        kept.parent.mkdir(exist_ok=True)
        write_whole(kept, gzip.compress(json.dumps(rides).encode(), mtime=0))


def recorded_rides(client: NotebookClient) -> dict[str, dict[str, str]]:
    """As `load_rides`, from a client that has just run its notebook."""
    rides = {}
    for cell in client.nb.cells:
        for output in cell.get("outputs", []):
            view = output.get("data", {}).get(WIDGET_VIEW)
            if view and (found := _playing(client, view["model_id"])):
                widget, state = found
                rides[ride_key(cell.source)] = {"widget": widget, "json": to_json(state)}
    return rides


def _playing(client: NotebookClient, model: str) -> tuple[str, dict[str, Any]] | None:
    """The first widget in a widget that plays by itself: its name and what its model holds."""
    state = client.widget_state.get(model, {})
    for widget, names in (("elevator", elevator.STATE), ("film", film.STATE)):
        if names[-1] in state:
            return widget, _whole(client, model, names)
    children = (_playing(client, child.removeprefix("IPY_MODEL_")) for child in state.get("children", ()))
    return next(filter(None, children), None)


def _whole(client: NotebookClient, model: str, names: Sequence[str]) -> dict[str, Any]:
    """Some of a model's state, with the bytes that travel beside it put where they belong."""
    state = json.loads(json.dumps({name: client.widget_state[model][name] for name in names}))
    for path, buffer in client.widget_buffers.get(model, {}).items():
        if path[0] not in state:
            continue
        holder = state
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = base64.b64decode(buffer["data"])
    return state


def main(arguments: Sequence[str]) -> int:
    """Execute each notebook named."""
    for name in tqdm(arguments, desc="notebooks"):
        try:
            execute(Path(name))
        except CourseError as error:
            print(error, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
