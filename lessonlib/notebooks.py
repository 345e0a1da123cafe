"""What notebooks need around their cells: showing a source, and storing them fit for a repository.

Stored outputs are kept; widget state and traces of the machine are left out.

python -m lessonlib.notebooks notebooks/*.ipynb
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from tqdm import tqdm

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def show_source(function: Callable) -> None:
    """Print the library's own lines, so that a notebook never holds a second copy of them.

    A Triton kernel is shown as the Python function that it was made from.
    """
    print(textwrap.dedent(inspect.getsource(getattr(function, "fn", function))).rstrip())


def execute(path: Path, cell_timeout: int = 120) -> None:
    """Run a notebook from its own folder and write it back with its outputs. Raises where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    client = NotebookClient(
        notebook,
        timeout=cell_timeout,
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=False,
    )
    client.execute()
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


def main(arguments: Sequence[str]) -> int:
    """Execute each notebook named."""
    for name in tqdm(arguments, desc="notebooks"):
        execute(Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
