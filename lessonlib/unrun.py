"""A notebook's cells that this machine cannot run, shown as they were recorded.

Without Triton, as on macOS, half of notebook 04 runs and half of it cannot. Its first cell calls `need_triton`; from
then on each cell is looked at before it is run. One that imports a kernel, or uses a name that such a cell would have
made, is not run: what was stored for it in the notebook's file is shown, under a line that says so.
"""

from __future__ import annotations

import ast
import dis
import html
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import CodeType
from typing import Any

import nbformat
from IPython.core.getipython import get_ipython
from IPython.display import display

from kernels.tier import has_triton, triton_remedy

NOT_RUN = "lesson_not_run"  # in the metadata of an output: why the cell was not run
SHOW = "_show_recorded"


def need_triton(notebook: str) -> None:
    """Say what a notebook cannot do without Triton, and show recorded outputs from now on; with Triton do nothing.

    Args:
        notebook: the name of the notebook's file, in the current folder.
    """
    if has_triton():
        return
    shell = get_ipython()
    assert shell is not None, "called from a notebook's cell"
    cells = Recorded(stored_outputs(Path(notebook)), "Triton is not installed here")
    shell.input_transformers_post.append(cells)
    shell.push({SHOW: cells.show})
    _note(
        "Triton is not installed here, so this notebook cannot run its kernels. Cells that need them show what was "
        f"recorded on another machine and compute nothing; the others run. To get Triton: {triton_remedy()}.",
        cells.why,
    )


def stored_outputs(path: Path) -> dict[str, list[dict[str, Any]]]:
    """A notebook's outputs by its cells' sources, without the notes of an earlier session; empty without the file."""
    if not path.is_file():
        return {}
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return {
        cell.source.strip(): [out for out in cell.outputs if NOT_RUN not in out.get("metadata", {})]
        for cell in cells
    }


def reason(outputs: Sequence[Any]) -> str:
    """Why the cell with these outputs was not run; "" if it was."""
    marked = (out["metadata"][NOT_RUN] for out in outputs if NOT_RUN in out.get("metadata", {}))
    return next(marked, "")


class Recorded:
    """An input transformer of IPython: replaces a cell that cannot run by one that shows its stored outputs.

    Args:
        outputs: see `stored_outputs`.
        why: what is missing, as a short sentence.
    """

    def __init__(self, outputs: dict[str, list[dict[str, Any]]], why: str) -> None:
        self.outputs, self.why = outputs, why
        self._missing: set[str] = set()  # names that cells would have made that were not run

    def __call__(self, lines: list[str]) -> list[str]:
        source = "".join(lines)
        try:
            code = compile(source, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        except SyntaxError:
            return lines
        read, made = _names(code)
        if not read & self._missing and not _imports_triton(ast.parse(source)):
            self._missing -= made
            return lines
        self._missing |= made
        return [f"{SHOW}({source.strip()!r})\n"]

    def show(self, source: str) -> None:
        """Show what was recorded for a cell."""
        recorded = self.outputs.get(source)
        if recorded is None:
            _note(f"Not run: {self.why}. Nothing is recorded for a cell with these lines.", self.why)
            return
        _note(f"Not run: {self.why}. Recorded on another machine.", self.why)
        for out in recorded:
            if out["output_type"] == "stream":
                print(out["text"], end="")
            elif "data" in out:
                display(dict(out["data"]), metadata=dict(out["metadata"]), raw=True)


def _note(text: str, why: str) -> None:
    """A line that stands out in a notebook, marked so that a checker knows the cell for one that was not run."""
    style = "border-left: 4px solid #E69F00; padding: 2px 8px"
    data = {"text/plain": text, "text/html": f'<div style="{style}">{html.escape(text)}</div>'}
    display(data, metadata={NOT_RUN: why}, raw=True)


def _names(code: CodeType) -> tuple[set[str], set[str]]:
    """The names that a cell reads before it has made them, in its functions too, and those that it makes."""
    read, made = set[str](), set[str]()
    for instruction in dis.get_instructions(code):
        value = instruction.argval
        if instruction.opname == "STORE_NAME":
            made.add(value)
        elif instruction.opname in ("LOAD_NAME", "LOAD_GLOBAL"):
            read |= {value} - made
        elif isinstance(value, CodeType):
            read |= _names(value)[0] - made
    return read, made


def _imports_triton(tree: ast.Module) -> bool:
    """Whether one of a cell's imports fails for want of Triton."""
    return any(_needs_triton(module) for module in _imported(tree))


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _needs_triton(module: str) -> bool:
    try:
        import_module(module)
    except ImportError as error:
        return (error.name or "").split(".")[0] == "triton"
    return False
