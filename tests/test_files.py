"""A file is whole or not there."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lessonlib.errors import CourseError
from lessonlib.files import write_whole


def test_text_and_bytes_take_the_place_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    for content, found in (("é\n", "é\n".encode()), (b"\xff", b"\xff"), ("\ud800", b"?")):
        assert write_whole(path, content) == path
        assert path.read_bytes() == found
    assert os.listdir(tmp_path) == ["kept.json"]


def test_it_may_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        assert stat.S_IMODE(write_whole(tmp_path / "kept", "x").stat().st_mode) == 0o640
    finally:
        os.umask(before)


def test_what_cannot_be_written_whole_leaves_what_was_there(tmp_path: Path) -> None:
    """Stopped by a limit on the size of files: the old one is whole, and nothing lies beside it."""
    path = tmp_path / "kept"
    path.write_text("old")
    script = (
        "import resource, sys; from lessonlib.files import write_whole\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))\n"
        "write_whole(sys.argv[1], b'x' * (1 << 20))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.stderr.splitlines()[-1].endswith("kept: File too large; choose another place")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["kept"]


def test_a_link_stays_and_what_is_no_file_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("there")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_whole(tmp_path / "pipe", "through")
    assert os.read(reader, 100) == b"through"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    os.close(reader)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere/kept", "No such file or directory"),
        ("file/kept", "Not a directory"),
        ("folder", "Is a directory"),
    ],
)
def test_where_it_cannot_be_written_one_line_says_so(name: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CourseError, match=rf"^cannot write .*{name}: {told}; choose another place$"):
        write_whole(tmp_path / name, "x")
