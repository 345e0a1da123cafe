"""One way to write a result down: with its machine, versions, date, command and commit."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from kernels.machine import command, commit, cpu
from lessonlib.files import write_whole


def circumstances(*packages: str) -> dict[str, Any]:
    """Where and with what a figure was measured."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command(sys.argv),
        "commit": commit(),
        "machine": {"cpu": cpu(), "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": {name: metadata.version(name) for name in ("numpy", *packages)},
    }


def record(name: str, result: dict[str, Any], folder: Path, *packages: str) -> Path:
    """Write `result` with its circumstances as `folder/name.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {**circumstances(*packages), "result": result}
    return write_whole(folder / f"{name}.json", json.dumps(told, indent=1) + "\n")
