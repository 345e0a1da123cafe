"""The one way in which the course writes a file that is worth keeping."""

from __future__ import annotations

import os
from pathlib import Path
from zlib import crc32

from lessonlib.errors import CourseError


def write_whole(path: str | Path, content: str | bytes) -> Path:
    """A file that is whole or not there, whatever happens meanwhile; what was there before is kept until then.

    It is written beside its name and then moved there. What is no file, such as /dev/stdout, is written to as it
    is. Text goes out as UTF-8, with a question mark for what that cannot hold.

    Raises `CourseError` where it cannot be written.
    """
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    place = Path(os.path.realpath(path))  # where a link points to, not the link
    try:
        if place.exists() and not place.is_file():
            place.write_bytes(data)
        else:
            _move_there(place, data)
    except OSError as error:
        raise _no_place(path, error) from error
    return Path(path)


def check_place(path: str | Path) -> None:
    """Whether a file can be written there; one that is there stays. Raises `CourseError` where it cannot."""
    scratch = _scratch(Path(path))
    try:
        scratch.touch()
        scratch.unlink()
    except OSError as error:
        raise _no_place(path, error) from error


def _scratch(path: Path) -> Path:
    """A short name beside it, however long its own is: a file system takes 255 bytes."""
    return path.with_name(f".{crc32(os.fsencode(path.name)):08x}.{os.getpid()}.part")


def _no_place(path: str | Path, error: OSError) -> CourseError:
    return CourseError(f"cannot write {path}: {error.strerror}; choose another place")


def _move_there(path: Path, data: bytes) -> None:
    scratch = _scratch(path)
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
