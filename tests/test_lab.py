"""`lesson lab`: JupyterLab on the course, as a user, as root, and far from any browser."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from lessonlib import lab, layout
from lessonlib.errors import CourseError

ROOT = Path(__file__).parents[1]


def command(**changes: object) -> list[str]:
    asked = {"port": None, "ip": None, "is_root": False, "has_browser": True, **changes}
    return lab.lab_command(ROOT, **asked)  # type: ignore[arg-type]


def test_nothing_is_opened_unasked() -> None:
    line = " ".join(command())
    assert "--allow-root" not in line
    assert "ServerApp.ip" not in line
    assert f"root_dir={ROOT}" in line
    assert f"default_url=/lab/tree/{layout.FIRST}" in line


def test_root_is_let_in_and_told_why_that_is_all_right() -> None:
    assert "--allow-root" in command(is_root=True)
    assert "listens on this machine alone, behind a token" in lab.notices(None, True, True)[0]


def test_an_open_address_is_said() -> None:
    assert "--ServerApp.ip=0.0.0.0" in command(ip="0.0.0.0")
    assert any("open to the network on 0.0.0.0" in line for line in lab.notices("0.0.0.0", False, True))
    assert lab.notices("127.0.0.1", False, True) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"port": 0}, "port 0: give 1 to 65,535"),
        ({"port": 70_000}, "port 70000"),
        ({"ip": "everywhere"}, "IP 'everywhere' is no address"),
    ],
)
def test_a_wrong_address_is_one_line(changes: dict[str, object], words: str) -> None:
    with pytest.raises(CourseError, match=re.escape(words)):
        command(**changes)


def test_another_folder_is_told_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(CourseError, match=r"has no notebooks/01.*lesson start"):
        lab.lab_command(tmp_path, None, None, False, True)


def test_the_printed_address_answers_and_the_terminal_finds_lesson(tmp_path: Path) -> None:
    """As `make lab` on a machine without a browser: the address with its token opens Lab."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "log"
    lesson_lab = [sys.executable, "-m", "lessonlib.cli", "lab"]
    there = {**os.environ, "BROWSER": "/nonexistent %s"}
    there |= {f"JUPYTER_{kind}_DIR": str(tmp_path / kind) for kind in ("CONFIG", "RUNTIME")}
    with log.open("wb") as file:
        running = subprocess.Popen(
            [*lesson_lab, "--port", str(port)],
            cwd=ROOT,
            env=there,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = _address(log, running)
        base, token = address.split("/lab")[0], address.split("token=")[1]
        assert b"JupyterLab" in urllib.request.urlopen(address, timeout=30).read()
        contents = f"{base}/api/contents/exercises?token={token}"
        assert urllib.request.urlopen(contents, timeout=30).status == 200
        again = subprocess.run(
            lesson_lab, cwd=ROOT, env=there, capture_output=True, text=True, timeout=60, check=True
        )
        assert "is open on this folder already" in again.stdout
        assert again.stdout.splitlines()[-1].replace("localhost", "127.0.0.1") == address.replace(
            "localhost", "127.0.0.1"
        )
        variables = Path(f"/proc/{running.pid}/environ")
        if variables.is_file():
            path = dict(line.partition("=")[::2] for line in variables.read_text().split("\0"))["PATH"]
            assert path.split(os.pathsep)[0] == str(Path(sys.executable).parent)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def _address(log: Path, running: subprocess.Popen[bytes]) -> str:
    for _ in range(240):
        if found := re.search(r"http://(?:localhost|127\.0\.0\.1):\d+/lab\S*token=\w+", log.read_text()):
            return found[0]
        assert running.poll() is None, log.read_text()
        time.sleep(0.5)
    raise AssertionError(log.read_text())


def test_a_server_that_is_gone_is_not_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed with its container it left its file, and in the next container its number was another process's."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    left = {
        "url": f"http://127.0.0.1:{port}/",
        "token": "t",
        "root_dir": str(ROOT),
        "pid": os.getpid(),
        "port": port,
    }
    (tmp_path / "jpserver-1.json").write_text(json.dumps(left))
    assert lab.already_open(ROOT) is None


def test_a_port_that_is_taken_is_named_before_jupyter_starts(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CourseError, match=f"port {port} is taken by another program: give another one"):
            lab.open_lab(port, None)
    assert capfd.readouterr().err == ""
