"""Hostile submissions: each ends within its limit, is told what happened, and leaves nothing running."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import needs
import pytest
from attacks import ATTACKS, source

from lessonlib.checks import check
from lessonlib.checks.report import Result
from lessonlib.checks.runner import COMES_BACK
from lessonlib.checks.sandbox import confine
from lessonlib.checks.sandbox import process as sandbox_process
from lessonlib.checks.sandbox.confine import BUBBLEWRAP, LIMITS, USER
from lessonlib.errors import CourseError

SECRET = Path(__file__).parents[1] / "solutions" / "ex01.py"
LEVELS = ("bubblewrap", "user", "limits")
# Attack and level, without what a level does not keep out, as a report says.
CONTAINED = [
    (name, level)
    for name, attack in ATTACKS.items()
    for level in LEVELS
    if not (level == "limits" and attack.outside)
    and not (level == "user" and name in ("reads_the_solution", "network", "disk_filler"))
]
SYSTEM_PYTHON = "/usr/bin/python3"  # for another user, who cannot run a Python in somebody's home


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """A folder for scratch folders, with a name that nothing else has; every user may walk through it."""
    folder = Path("/tmp") / f"attacked-{uuid.uuid4().hex}"
    folder.mkdir(mode=0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch, scratch) -> confine.Level:
    chosen = {"bubblewrap": BUBBLEWRAP, "user": USER}.get(request.param) or confine.level_named("limits")
    if chosen.name == LIMITS.name:
        return chosen
    if chosen == BUBBLEWRAP and shutil.which("bwrap") is None:
        needs.BUBBLEWRAP.skip()
    if chosen == USER and os.geteuid() != 0:
        needs.ROOT.skip()
    if chosen == USER and not confine._works(USER, needs_gpu=False) and os.path.exists(SYSTEM_PYTHON):
        monkeypatch.setattr(confine, "interpreter", lambda: SYSTEM_PYTHON)
        monkeypatch.setattr("lessonlib.checks.sandbox.process.interpreter", lambda: SYSTEM_PYTHON)
    if not confine._works(chosen, needs_gpu=False):
        (needs.BUBBLEWRAP_ALLOWED if chosen == BUBBLEWRAP else needs.SYSTEM_PYTHON).skip()
    return chosen


def told(folder: Path, text: str, level: confine.Level) -> Result:
    (folder / "ex01.py").write_text(text, encoding="utf-8")
    (result,) = check("ex01.1", folder=folder, call_seconds=0.6, level=level).results
    return result


def left_running(*markers: str) -> list[str]:
    """Command lines of processes that have one of these in them, zombies aside."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if int(process.name) != os.getpid() and any(marker in words for marker in markers):
            found.append(words)
    return found


@pytest.mark.parametrize(("name", "level"), CONTAINED, indirect=["level"])
def test_an_attack_ends_and_is_told(name: str, level: confine.Level, scratch: Path, tmp_path: Path) -> None:
    attack, marker = ATTACKS[name], f"marker-{uuid.uuid4().hex}"
    with socket.create_server(("127.0.0.1", 0)) as server:
        started = time.monotonic()
        result = told(tmp_path, source(attack, str(SECRET), marker, server.getsockname()[1]), level)
        assert time.monotonic() - started < 15
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert result.status == "failed", result.message
    assert any(words in result.message for words in attack.told), result.message
    assert len(result.message) < 3_000
    assert "\x1b" not in str(result.message)
    assert left_running(str(scratch), marker) == []
    assert list(scratch.glob("check-*")) == []


@pytest.mark.parametrize(
    ("seconds", "told_first"), [(0.3, "No answer within 0.3 seconds."), (60.0, "It used up the memory")]
)
def test_the_verdict_is_the_same_whichever_limit_is_met_first(
    seconds: float, told_first: str, tmp_path: Path
) -> None:
    """Four gigabytes take about as long as a call may: on a busy machine the time is out first."""
    (tmp_path / "ex01.py").write_text(source(ATTACKS["memory_bomb"]), encoding="utf-8")
    (result,) = check("ex01.1", folder=tmp_path, call_seconds=seconds).results
    assert (result.status, result.property_name) == ("failed", COMES_BACK)
    assert result.sentence.startswith(told_first)
    assert result.sentence.endswith(" Does one of its loops never end?")


@pytest.mark.parametrize("name", ["fork_bomb", "thread_bomb", "disk_filler", "large_file"])
def test_a_limit_that_an_exception_tells_of_is_named(name: str, tmp_path: Path) -> None:
    attack = ATTACKS[name]
    if attack.outside and confine.best_level() != BUBBLEWRAP:
        needs.BUBBLEWRAP.skip()
    (tmp_path / "ex01.py").write_text(source(attack), encoding="utf-8")
    (result,) = check("ex01.1", folder=tmp_path, call_seconds=10.0).results
    assert result.property_name == COMES_BACK
    assert result.sentence.startswith("It used up the "), result.sentence


@pytest.mark.parametrize("name", ["network", "reads_the_solution"])
def test_what_limits_alone_do_not_contain_is_said(name: str, tmp_path: Path) -> None:
    """The report's words are true: at that level the attack comes through."""
    limits = confine.level_named("limits")
    with socket.create_server(("127.0.0.1", 0)) as server:
        text = source(ATTACKS[name], str(SECRET), port=server.getsockname()[1])
        result = told(tmp_path, text, limits)
    came_through = "utilization is never above one" if name == "network" else "Exercise 01: how full"
    assert came_through in result.message
    report = check("ex01.1", folder=tmp_path, call_seconds=0.6, level=limits)
    assert "sandbox: limits (all is well: your own code ran on your own machine" in str(report)
    (said,) = map(str, report.levels)  # for those who run the code of others
    assert said.startswith(
        "sandbox: limits; not contained: the network, reading files that this user may read"
    )
    assert ("does not bind root" in said) == (os.geteuid() == 0)


def test_an_unknown_level_says_what_there_is() -> None:
    with pytest.raises(
        CourseError, match="unknown sandbox 'docker': there is auto, bubblewrap, user, limits"
    ):
        confine.level_named("docker")


def test_time_in_which_a_process_waits_for_a_core_is_not_its_own() -> None:
    """Beside another process on its one core, at the lowest priority, it runs for some hundredths of the time."""
    core = min(os.sched_getaffinity(0))

    def counted(program: str, *before: str) -> float:
        words = ["taskset", "--cpu-list", str(core), *before, sys.executable, "-c", program]
        with subprocess.Popen(words) as process:
            time.sleep(0.5)  # until it is what it shall be
            clock, began = sandbox_process._Clock(60.0, process.pid), time.monotonic()
            while time.monotonic() - began < 1.5:
                time.sleep(sandbox_process.POLL)
                clock.look()
            process.kill()
        return clock.took

    endless = "while True: pass"
    with subprocess.Popen(["taskset", "--cpu-list", str(core), sys.executable, "-c", endless]) as hog:
        waiting = counted(endless, "nice", "-n", "19")
        hog.kill()
    asleep = counted("import time; time.sleep(60)")
    assert waiting < 0.5
    assert asleep > 1.0


def test_a_trickle_of_bytes_ends_too(tmp_path: Path) -> None:
    """A process that always has something to read, and never an answer."""
    body = (
        "def static_utilization(lengths, slots):\n"
        "    import os, time\n"
        "    while True:\n"
        "        for fd in map(int, os.listdir('/proc/self/fd')):\n"
        "            try: os.write(fd, b' ')\n"
        "            except OSError: pass\n"
        "        time.sleep(0.02)\n"
    )
    (tmp_path / "ex01.py").write_text(body, encoding="utf-8")
    started = time.monotonic()
    (result,) = check("ex01.1", folder=tmp_path, call_seconds=0.6).results
    assert time.monotonic() - started < 15
    assert result.property_name == COMES_BACK


def test_a_careful_umask_leaves_the_child_its_files(level: confine.Level, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        (result,) = check("ex02.1", folder=SECRET.parent, level=level).results
    finally:
        os.umask(before)
    assert result.status == "passed", result.message


def test_a_user_id_is_one_cells_alone_and_comes_back(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        needs.ROOT.skip()
    first, second = confine._lease_user(), confine._lease_user()
    assert first.user != second.user
    first.release()
    second.release()


def test_memory_is_counted_over_all_processes(level: confine.Level, tmp_path: Path, monkeypatch) -> None:
    """Six of them take 100 MB each, and each alone is far below its limit."""
    monkeypatch.setitem(sandbox_process.TOGETHER, "python", 300 << 20)
    body = (
        "def static_utilization(lengths, slots):\n"
        "    import os, time\n"
        "    for _ in range(6):\n"
        "        if os.fork() == 0:\n"
        "            held = bytearray(os.urandom(1 << 20)) * 100\n"
        "            time.sleep(600)\n"
        "    time.sleep(600)\n"
    )
    (tmp_path / "ex01.py").write_text(body, encoding="utf-8")
    (result,) = check("ex01.1", folder=tmp_path, call_seconds=30.0, level=level).results
    assert result.property_name == COMES_BACK
    assert result.sentence.startswith("All its processes together used up the memory that they may have.")


def test_pages_that_forks_share_are_counted_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sandbox_process.TOGETHER, "python", 400 << 20)
    body = (
        "def static_utilization(lengths, slots):\n"
        "    import os, time\n"
        "    held = bytearray(os.urandom(1 << 20)) * 150\n"
        "    for _ in range(6):\n"
        "        if os.fork() == 0: time.sleep(600)\n"
        "    time.sleep(1.0)\n"
        "    return 2.0\n"
    )
    (tmp_path / "ex01.py").write_text(body, encoding="utf-8")
    (result,) = check("ex01.1", folder=tmp_path, call_seconds=30.0).results
    assert result.property_name == "utilization is never above one"


def test_a_bubble_has_no_user_namespaces(tmp_path: Path) -> None:
    if confine.best_level() != BUBBLEWRAP:
        needs.BUBBLEWRAP.skip()
    if not (confine._can_nest() if os.geteuid() == 0 else confine._can_disable()):
        needs.BUBBLEWRAP_ALLOWED.skip()
    body = (
        "def static_utilization(lengths, slots):\n"
        "    import ctypes, os\n"
        "    libc = ctypes.CDLL(None, use_errno=True)\n"
        "    if libc.unshare(0x10000000) == 0: return 2.0\n"
        "    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))\n"
    )
    (tmp_path / "ex01.py").write_text(body, encoding="utf-8")
    (result,) = check("ex01.1", folder=tmp_path).results
    assert "No space left on device" in result.sentence, result.message


def test_the_courses_own_packages_are_copied_for_whoever_runs_them(tmp_path: Path) -> None:
    """A user without rights cannot enter root's home, where a course may lie."""
    linked = sandbox_process._link_packages(tmp_path / "site", ["numpy", "kernels"])
    assert (tmp_path / "site" / "numpy").is_symlink()
    assert (tmp_path / "site" / "kernels" / "attention.py").is_file()
    assert not (tmp_path / "site" / "kernels").is_symlink()
    assert not any(path.name == "kernels" for path in linked)


def test_a_folder_that_keeps_another_user_out_is_named(tmp_path: Path, monkeypatch) -> None:
    if os.geteuid() != 0:
        needs.ROOT.skip()
    (tmp_path / "home").mkdir(mode=0o700)
    (tmp_path / "home" / "python3").touch()
    tmp_path.chmod(0o755)
    monkeypatch.setattr(confine, "best_level", confine._limits)
    monkeypatch.setattr(confine, "interpreter", lambda: str(tmp_path / "home" / "python3"))
    why = confine.why_no_better()
    closed = why.removeprefix("other users cannot enter ").partition(":")[0]
    assert not Path(closed).stat().st_mode & 0o001
    assert (tmp_path / "home").is_relative_to(closed)
    assert why.endswith(f": chmod o+x {closed}, or move the course out of it")
    monkeypatch.setattr(confine, "best_level", lambda: BUBBLEWRAP)
    assert confine.why_no_better() == ""
