"""Results that were measured elsewhere and are kept in `benchmarks/results`: read, and labelled."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lessonlib.errors import CourseError
from lessonlib.layout import RESULTS, results
from lessonlib.result import Comparison


def load(name: str) -> dict[str, Any]:
    """The result that lies in `benchmarks/results/NAME.json`, with its machine, versions, date and command."""
    folder = results()
    try:
        return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = ", ".join(sorted(each.stem for each in folder.glob("*.json"))) or "nothing"
        raise CourseError(f"no recorded result {name!r} in {RESULTS}: there is {there}") from None


def label(result: dict[str, Any]) -> str:
    """What a figure of this result must wear: machine, date and command."""
    command = measuring(result["command"])
    machine = result["machine"]
    if isinstance(machine, dict):
        machine = machine.get("gpu") or f"{machine['cpu']}, {machine['cores']} cores"
    return f"recorded on an {machine} on {result['date']}, command {command}"


def measuring(command: str) -> str:
    """What of a command measures: where its result was written to is nobody's concern."""
    return re.sub(r" --(?:out|json)(?: [^ ;-][^ ;]*)?", "", command)


def comparisons(what: str = "", folder: Path | None = None) -> dict[str, Comparison]:
    """Every recorded comparison of one kind, machine -> `Comparison`: the files `compare_MACHINE[_WHAT].json`.

    They lie in `folder`, by default where the course's results are; a file of your own that is named like this is
    one of them. Raises `CourseError` where there is none.
    """
    folder, found = folder or results(), {}
    for path in sorted(folder.glob("compare_*.json")):
        machine, _, kind = path.stem.removeprefix("compare_").partition("_")
        if kind == what:
            found[machine] = Comparison.load(path)
    if not found:
        name = "compare_MACHINE" + (f"_{what}" if what else "")
        raise CourseError(f"no {name}.json in {folder.name}: make one with `lesson compare --json FILE`")
    return found
