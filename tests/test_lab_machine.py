"""What docs/lab-machine.md tells root to type, typed: in a machine's /etc and /srv of their own, as three users."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import needs
import pytest

from lessonlib.grading import submissions
from lessonlib.grading.layouts import collect

PAGE = Path(__file__).parents[1] / "docs" / "lab-machine.md"
IN_A_MACHINE = """set -eu
mount --make-rprivate /
mount --bind "$1/etc" /etc
mount --bind "$1/srv" /srv
useradd --system --create-home --home-dir /srv/lesson grader
for name in ada bob; do useradd --no-create-home "$name"; done
groupadd students
for name in ada bob; do usermod -aG students "$name"; done
as() { user=$1; shift; setpriv --reuid "$user" --regid "$user" --init-groups -- "$@"; }
refused() { if as "$@" 2>/dev/null; then echo "not refused: $*"; exit 1; fi; }
"""
AS_THREE_USERS = """
cd "$2"
as ada sh -c "$3"
as grader cat /srv/lesson/drop/ada/ex01.py >/dev/null
as grader ls /srv/lesson/drop/ada >/dev/null
refused bob ls /srv/lesson/drop
refused ada ls /srv/lesson/drop
refused bob ls /srv/lesson/drop/ada
refused bob cat /srv/lesson/drop/ada/ex01.py
refused bob touch /srv/lesson/drop/ada/ex02.py
refused bob mkdir /srv/lesson/drop/eve
refused bob mv /srv/lesson/drop/bob /srv/lesson/drop/ada2
refused ada ln -s /srv/lesson/drop/ada /srv/lesson/drop/bob2
refused grader touch /srv/lesson/drop/ada/ex02.py
as bob ln -s /srv/lesson/drop/ada/ex01.py /srv/lesson/drop/bob/ex01.py
refused ada ls /srv/lesson/course
ls /srv/lesson/drop
"""


def blocks(heading: str) -> list[str]:
    """The commands below a heading of the page."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Folders to take the place of /etc and /srv, where this machine lets root do that."""
    if os.geteuid() != 0:
        needs.ROOT.skip()
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        needs.BUBBLEWRAP_ALLOWED.skip()
    shutil.copytree("/etc", tmp_path / "etc", symlinks=True)
    (tmp_path / "srv").mkdir()
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o001 == 0 and folder.is_relative_to("/tmp/pytest-of-root"):
            folder.chmod(folder.stat().st_mode | 0o011)
    return tmp_path


def test_the_drop_folder_is_written_to_by_its_owners_alone(machine: Path) -> None:
    set_up, hand_in = blocks("A drop folder")
    exercises = machine / "home"
    (exercises / "exercises").mkdir(parents=True)
    (exercises / "exercises" / "ex01.py").write_text("x = 1\n", encoding="utf-8")
    course = "mkdir -p /srv/lesson/course\nchmod 755 /srv/lesson/course\n"
    script = IN_A_MACHINE + course + set_up + set_up + AS_THREE_USERS
    words = ["unshare", "--mount", "--", "bash", "-c", script, "bash", str(machine), str(exercises), hand_in]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert done.stdout.split() == ["ada", "bob"]

    drop = machine / "srv" / "lesson" / "drop"
    handins = {handin.student: handin for handin in collect(drop).handins}
    assert submissions.read(drop, handins["ada"], ["ex01"]).files == {"ex01": b"x = 1\n"}
    bob = submissions.read(drop, handins["bob"], ["ex01"])
    assert bob.unreadable == {"ex01": "ex01.py is a link: it was not followed."}
