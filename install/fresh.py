"""The README's commands on bare Debians: what a new user sees on a machine that has none of our files.

Each Debian is made anew by debootstrap and entered by chroot, with processes, mounts and the environment of its own;
the network is the machine's. The checked-out commit is cloned into it, and the README's two commands run there with
the real torch of the package index: as a new user, and as root. On the Debian of the Containerfile its RUN lines are
what root does first. Needs root, debootstrap, 25 GB and half an hour; says how long each step took and writes
`benchmarks/results/fresh_SUITE.json`.

python install/fresh.py [bookworm] [trixie] [--folder /var/tmp/fresh] [--keep]
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SUITES = ("bookworm", "trixie")
# Nothing but what the README says a machine needs.
PACKAGES = "python3,python3-venv,make,git,ca-certificates"
STUDENT, COURSE = "student", "/srv/course.git"
CERTIFICATES = "usr/local/share/network-authority.crt"
ADDRESS = re.compile(r"(http://(?:localhost|127\.0\.0\.1):\d+)(/lab\S*)\?token=(\w+)")
SETUP_SECONDS, ANSWER_SECONDS = 3600, 60
ASK = """
import json, sys, urllib.request
base, path, token = sys.argv[1:]
def get(path):
    return urllib.request.urlopen(f"{base}{path}?token={token}", timeout=20).read()
assert b"JupyterLab" in get(path)
assert json.loads(get("/api/contents/exercises"))["type"] == "directory"
print(json.loads(get("/api/contents/notebooks/01_the_elevator_that_waits.ipynb"))["name"])
"""


class Debian:
    """A bare Debian in a folder."""

    def __init__(self, suite: str, folder: Path) -> None:
        self.suite = suite
        self.root = folder / suite
        self.steps: list[dict[str, Any]] = []
        self.commit = ""  # what was cloned into it

    def make(self) -> None:
        """Debootstrap it, put the checked-out commit where it can be cloned, add a user."""
        shutil.rmtree(self.root, ignore_errors=True)
        with self.step("debootstrap"):
            subprocess.run(
                ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", self.suite, str(self.root)],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        shutil.copy("/etc/resolv.conf", self.root / "etc/resolv.conf")
        if authority := os.environ.get("SSL_CERT_FILE"):  # of a network that looks into its traffic
            shutil.copy(authority, self.root / CERTIFICATES)
        subprocess.run(["git", "clone", "--quiet", "--bare", str(ROOT), f"{self.root}{COURSE}"], check=True)
        asked = ["git", "-C", f"{self.root}{COURSE}", "rev-parse", "HEAD"]
        self.commit = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
        (self.root / "etc/gitconfig").write_text("[safe]\n  directory = *\n")  # the clone's source is root's
        self.run("root", f"useradd --create-home --shell /bin/bash {STUDENT}")

    def command(self, user: str, line: str) -> list[str]:
        """What runs a line in a login shell of a user inside."""
        enter = (
            f"mount --rbind /dev {self.root}/dev && mount -t proc proc {self.root}/proc && "
            f"exec env -i TERM=dumb PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot {self.root} su --login {user} --command "
            f"{shlex.quote(self._known(line))}"
        )
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", enter]

    def _known(self, line: str) -> str:
        known = f"export PIP_CERT=/{CERTIFICATES}; " if (self.root / CERTIFICATES).is_file() else ""
        return known + line

    def run(self, user: str, line: str, statuses: tuple[int, ...] = (0,)) -> str:
        """Run a line inside and return what it printed. Raises `SystemExit` for another exit status."""
        done = subprocess.run(
            self.command(user, line),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if done.returncode not in statuses:
            raise SystemExit(
                f"fresh: {self.suite}, {user}: {line!r} ended with {done.returncode}:\n{done.stdout[-4000:]}"
            )
        return done.stdout

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Time a step, keep what it adds, and say both."""
        start = time.monotonic()
        kept: dict[str, Any] = {"step": name}
        print(f"{self.suite}: {name}", flush=True)
        yield kept
        kept["seconds"] = round(time.monotonic() - start)
        self.steps.append(kept)
        print(f"{self.suite}: {name}: {kept}", flush=True)

    def gigabytes(self, path: str) -> float:
        """The size of a folder inside."""
        return round(int(self.run("root", f"du --bytes --summarize {path}").split()[0]) / 1e9, 2)


@contextlib.contextmanager
def lab(debian: Debian, user: str, folder: str, line: str) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """`make lab` inside until its address is printed: what it said, and the address with its token."""
    log = debian.root.parent / f"{debian.suite}-{user}-lab.log"
    with log.open("wb") as file:
        running = subprocess.Popen(
            debian.command(user, f"cd {folder} && {line}"),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        limit = time.monotonic() + SETUP_SECONDS
        while not (found := ADDRESS.search(log.read_text(errors="replace"))):
            if running.poll() is not None or time.monotonic() > limit:
                raise SystemExit(
                    f"fresh: {user}: {line}: no address:\n{log.read_text(errors='replace')[-4000:]}"
                )
            time.sleep(1)
        yield log.read_text(errors="replace"), (found[1], found[2], found[3])
    finally:
        with contextlib.suppress(
            ProcessLookupError
        ):  # it may have ended by itself, as where its port is taken
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def readme(debian: Debian, user: str, folder: str) -> None:
    """The README's two commands as one user, the clone first."""
    if folder != container_folder():
        debian.run(user, f"git clone --quiet {COURSE} {folder}")
    is_root = user == "root"
    with debian.step(f"{user}: make lab, until it prints its address") as kept:
        with lab(debian, user, folder, "make lab") as (said, address):
            kept["answers"] = debian.run(user, f"python3 -c {shlex.quote(ASK)} {shlex.join(address)}").strip()
        kept["says it is root"] = "running as root" in said
        if kept["says it is root"] != is_root:
            raise SystemExit(f"fresh: {user}: make lab said:\n{said[-2000:]}")
    with debian.step(f"{user}: .venv/bin/lesson check ex01") as kept:
        kept["last line"] = debian.run(
            user, f"cd {folder} && .venv/bin/lesson check ex01", (1,)
        ).splitlines()[-2:]
    debian.steps[-1]["gigabytes"] = {
        "environment": debian.gigabytes(f"{folder}/.venv"),
        "model": debian.gigabytes("~" + user + "/.cache/continuous-batching-course"),
    }
    debian.steps[-1]["torch"] = debian.run(
        user, f"{folder}/.venv/bin/python -c 'import torch; print(torch.__version__)'"
    ).strip()


def notebooks(debian: Debian, user: str, folder: str) -> None:
    """Every notebook from its first cell to its last, without comparing: the figures are this machine's."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        with debian.step(f"{user}: {path.name} executed"):
            debian.run(user, f"cd {folder} && .venv/bin/jupyter execute --timeout=600 notebooks/{path.name}")


def container(debian: Debian) -> None:
    """What the Containerfile does, line by line, for the Debian that it names."""
    folder = container_folder()
    debian.run("root", f"git clone --quiet {COURSE} {folder}")
    for line in container_lines("RUN"):
        with debian.step(f"Containerfile: RUN {line}"):
            debian.run("root", f"export TIER=python; cd {folder} && {line}")
    command = shlex.join(json.loads(container_lines("CMD")[0]))
    with (
        debian.step(f"Containerfile: {command}") as kept,
        lab(debian, "root", folder, command) as (said, address),
    ):
        kept["answers"] = debian.run("root", f"python3 -c {shlex.quote(ASK)} {shlex.join(address)}").strip()
        kept["says it is open"] = "open to the network on 0.0.0.0, as asked" in said


def container_lines(word: str) -> list[str]:
    """The instructions of one kind in the Containerfile."""
    text = (ROOT / "Containerfile").read_text().replace("\\\n", " ")
    return re.findall(rf"^{word} (.*)$", text, re.MULTILINE)


def container_folder() -> str:
    """Where the Containerfile puts the course."""
    return container_lines("WORKDIR")[0]


def is_containers(suite: str) -> bool:
    """Whether the Containerfile starts from this Debian."""
    return f"debian:{suite}" in container_lines("FROM")[0]


def prove(suite: str, folder: Path) -> dict[str, Any]:
    """Everything on one Debian; returns the record."""
    debian = Debian(suite, folder)
    debian.make()
    seen = debian.run("root", "python3 -V; ls -d /opt/* /work /root/.pyenv /root/.cache 2>/dev/null || true")
    readme(debian, STUDENT, f"/home/{STUDENT}/course")
    notebooks(debian, STUDENT, f"/home/{STUDENT}/course")
    if is_containers(suite):
        container(debian)
    readme(debian, "root", container_folder() if is_containers(suite) else "/root/course")
    return {
        "debian": suite,
        "python and what of this machine is seen inside": seen.split("\n")[:-1],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": datetime.date.today().isoformat(),
        "commit": debian.commit,
        "command": f"make fresh SUITES={suite}",
        "steps": debian.steps,
    }


def main(arguments: list[str]) -> int:
    """Exit status 2 where a bare Debian cannot be made here."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suites", nargs="*", default=SUITES)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/fresh"), help="where they are made")
    parser.add_argument("--keep", action="store_true", help="leave them there afterwards")
    options = parser.parse_args(arguments)
    if os.geteuid() or not shutil.which("debootstrap"):
        print("fresh: needs root and debootstrap (apt-get install debootstrap)", file=sys.stderr)
        return 2
    options.folder.mkdir(parents=True, exist_ok=True)
    for suite in options.suites:
        record = prove(suite, options.folder)
        path = RESULTS / f"fresh_{suite}.json"
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"{suite}: {path.relative_to(ROOT)}", flush=True)
        if not options.keep:
            shutil.rmtree(options.folder / suite)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
