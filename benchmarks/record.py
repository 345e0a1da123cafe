"""One way to write a result down: with its machine, versions, date, command and commit."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def circumstances(*packages: str) -> dict[str, Any]:
    """Where and with what a figure was measured."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command(sys.argv),
        "commit": _commit(),
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": {name: metadata.version(name) for name in ("numpy", *packages)},
    }


def record(name: str, result: dict[str, Any], folder: Path, *packages: str) -> Path:
    """Write `result` with its circumstances as `folder/name.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**circumstances(*packages), "result": result}, indent=1) + "\n")
    return path


def command(words: Sequence[str]) -> str:
    """What was called, as one would type it in the repository's folder; of other paths only the name is told."""
    script, *options = words
    path = Path(script).resolve()
    if path.is_relative_to(ROOT) and path.suffix == ".py":
        called = ["-m", ".".join(path.relative_to(ROOT).with_suffix("").parts)]
    else:
        called = [_without_place(script)]
    return " ".join(["python", *called, *map(_without_place, options)])


def _without_place(word: str) -> str:
    """A word of a command; an absolute path relative to the repository, or as `.../name` where it is not in it."""
    path = Path(word)
    if not path.is_absolute():
        return word
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else f".../{path.name}"


def _commit() -> str:
    asked = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    return asked.stdout.strip() or "unknown"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"
