"""Ask pip itself whether the lock resolves against the plain index, for every supported Python that this machine has.

Nothing is installed, and pip's settings and local wheels are out of reach, so that a green run cannot owe itself to
what this one machine happens to have on its disk.

python install/resolve.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).parent))
import lock  # noqa: E402

# Where pip would find settings, caches and wheels of this machine's own; TLS certificates are left alone.
FORGOTTEN = (
    "PIP_FIND_LINKS",
    "PIP_EXTRA_INDEX_URL",
    "PIP_INDEX_URL",
    "PIP_CONSTRAINT",
    "PIP_CACHE_DIR",
    "PYTHONPATH",
)


def supported_pythons() -> list[str]:
    """One interpreter for each supported version: on PATH, else under pyenv."""
    shelves = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin"))
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, shelves)])
    candidates = [(version, _all_on(path, f"python{version}")) for version in lock.PYTHONS]
    return [next(filter(None, map(_real, found))) for _, found in candidates if any(map(_real, found))]


def _all_on(path: str, name: str) -> list[str]:
    return [found for folder in path.split(os.pathsep) if (found := shutil.which(name, path=folder))]


def _real(python: str) -> str:
    """The interpreter behind a name, or nothing where a version manager's shim has none."""
    asked = subprocess.run(
        [python, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True
    )
    return asked.stdout.strip()


def plain_environment() -> dict[str, str]:
    """This process's environment without what only this machine has."""
    kept = {name: value for name, value in os.environ.items() if name not in FORGOTTEN}
    return {
        **kept,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_CACHE_DIR": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def resolve(python: str) -> tuple[str, float, str]:
    """The interpreter, seconds, and what pip complained of (empty: it resolves)."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        environment = plain_environment()
        pip = [f"{folder}/venv/bin/python", "-m", "pip", "install"]
        commands = [
            [python, "-m", "venv", f"{folder}/venv"],
            # Only a newer pip can leave wheels of gigabytes where they are and read their metadata alone.
            [*pip, "--quiet", "--upgrade", "pip"],
            [*pip, "--quiet", "--dry-run", "--use-feature=fast-deps", "--report", f"{folder}/report.json"],
        ]
        commands[-1] += ["--constraint", str(lock.lock_file("python")), f"{ROOT}[test,site]"]
        for command in commands:
            run = subprocess.run(command, env=environment, capture_output=True, text=True)
            if run.returncode:
                return python, time.monotonic() - start, run.stderr.strip() or run.stdout.strip()
    return python, time.monotonic() - start, ""


def main() -> int:
    """Exit status 1 where a lock does not resolve, 2 where there is nothing to ask with."""
    pythons = supported_pythons()
    if not pythons:
        print(f"resolve: no Python {lock.PYTHONS[0]} to {lock.PYTHONS[-1]} on this machine", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(len(pythons)) as pool:
        answers = list(pool.map(resolve, pythons))
    for python, seconds, problem in answers:
        print(f"{python}: {problem or 'resolves'} ({seconds:.0f} s)", flush=True)
    return 1 if any(problem for _, _, problem in answers) else 0


if __name__ == "__main__":
    sys.exit(main())
