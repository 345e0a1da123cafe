"""The files of one submission, wherever they lie: in a folder, in a zip or a tar, or in one of these inside of it.

All of it is a stranger's. A folder is held by its descriptor and every step below it refuses links, so that what
is exchanged while it is read is not followed. Nothing is unpacked to disk, sizes are bounded before anything is
read, and what is left out is noted.
"""

from __future__ import annotations

import bz2
import calendar
import errno
import gzip
import io
import lzma
import os
import pathlib
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Any, Self, cast

from lessonlib.checks.sandbox.cleaning import clean
from lessonlib.errors import CourseError

MAX_ENTRIES = 20_000  # files and folders of one submission
MAX_DEPTH = 50  # folders inside of each other
MAX_NESTING = 2  # archives inside of each other
MAX_INNER = 64 << 20  # bytes of an archive that lies in a folder or in another archive
MAX_UNPACKED = 256 << 20  # bytes of a compressed tar, whose files can only be found by unpacking it
NOT_ANSWERS = {"solutions", "mutants", "site-packages", "node_modules", "__pycache__", "__MACOSX"}
ZIP = (".zip",)
TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
OTHER_ARCHIVES = (".7z", ".rar")
# How a compressed file begins → what reads it.
COMPRESSIONS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
# A FIFO is opened without waiting for a writer, and then seen to be no plain file.
NO_LINKS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

ENCRYPTED = 1  # in a zip member's flags
FILE, FOLDER, LINK, OTHER = "file", "folder", "link", "other"
DRIVE = re.compile(r"[A-Za-z]:")

Path = PurePosixPath


class Unreadable(Exception):  # noqa: N818 - a verdict on a submission or a file, not an error of the grader
    """Something cannot be read; the text is a sentence that says what and why."""


@dataclass(frozen=True)
class Entry:
    """One file of a submission.

    Attributes:
        path: where it lies in the submission, fit to be shown.
        size: its bytes, as its folder or archive has it.
        changed: when it was last changed, in seconds since 1970; 0.0 where that is not known.
        read: its first bytes, at most as many as given; raises whatever is wrong with it.
    """

    path: Path
    size: int
    changed: float
    read: Callable[[int], bytes]


@dataclass
class Inventory:
    """What is found while one submission is read.

    Attributes:
        opened: closes what was opened; entries can be read until then.
        on_file: gets the path of each file before it is looked into.
        refused: path → why it is not to be looked into again.
        left_out: path → why it was not read, a sentence.
        notes: what else is to be told, a sentence each.
        count: files and folders so far.
    """

    opened: ExitStack
    on_file: Callable[[str], None] = lambda path: None
    refused: Mapping[str, str] = field(default_factory=dict)
    left_out: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    count: int = 0

    def look_into(self, path: object) -> None:
        """Say that this file is next. Raises `Unreadable` where it is one of those that are refused."""
        if str(path) in self.refused:
            raise Unreadable(self.refused[str(path)])
        self.on_file(str(path))

    def count_one(self) -> None:
        """Raises `Unreadable` past MAX_ENTRIES."""
        self.count += 1
        if self.count > MAX_ENTRIES:
            raise Unreadable(f"It has more than {MAX_ENTRIES:,} files and folders.")


def is_archive(name: str) -> bool:
    return name.lower().endswith(ZIP + TAR)


def without_ending(name: str) -> str:
    """The name of an archive without what makes it one; any other name as it is."""
    endings = [each for each in ZIP + TAR if name.lower().endswith(each)]
    return name[: -max(map(len, endings))] if endings else name


def is_hidden(path: Path) -> bool:
    """Whether no answer lies there: in hidden folders, in those of installed packages, in the course's solutions."""
    return any(part.startswith(".") or part in NOT_ANSWERS for part in path.parts)


def describe(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, Unreadable):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return clean(f"{type(error).__name__}: {error}".rstrip(": "), 200)


# ----- the class's folder, or the zip of one -----


class Top:
    """What holds a whole class: a folder, or the zip that a platform makes of one. Use as a context manager.

    Raises `CourseError` where it is neither.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._opened = ExitStack()
        self._folder: int | None = None
        self._members: list[_Member] = []

    def __enter__(self) -> Self:
        try:
            if self._path.is_dir():
                self._folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._opened.callback(os.close, self._folder)
            else:
                file = self._opened.enter_context(self._path.open("rb"))
                archive = self._opened.enter_context(zipfile.ZipFile(file))
                self._members = list(_zip_members(archive))
        except Exception as error:  # the library raises more kinds than it names
            self._opened.close()
            raise CourseError(
                f"cannot read {clean(str(self._path))} ({describe(error)}): give the folder of submissions, or the "
                "zip that the platform makes of it"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def children(self, above: tuple[str, ...] = ()) -> dict[str, str]:
        """Name → FILE, FOLDER, LINK or OTHER of what lies in the folder `above`, which "()" is the top of."""
        if self._folder is not None:
            with _Below(self._folder, above) as opened, os.scandir(opened) as found:
                return {each.name: _kind(each.stat(follow_symlinks=False).st_mode) for each in found}
        children: dict[str, str] = {}
        for member in self._members:
            parts = member.parts
            if member.is_outside:
                children["/".join(parts)] = OTHER
            elif parts[: len(above)] == above and len(parts) > len(above):
                is_file = len(parts) == len(above) + 1
                children[parts[len(above)]] = (LINK if member.is_link else FILE) if is_file else FOLDER
        return children

    def files(self, source: tuple[str, ...], path: Path, inventory: Inventory) -> Iterator[Entry]:
        """The file `source`, or every file of it where it is a folder or an archive.

        Args:
            source: names on the way to it, from the top.
            path: what it is called in the submission; "." for what is the whole of the submission.

        Raises `Unreadable` where it can be none of these, or is more than anyone hands in.
        """
        if self._folder is not None:
            with _Below(self._folder, source[:-1]) as opened:
                parent = os.dup(opened)
            inventory.opened.callback(os.close, parent)
            yield from _files_at(parent, source[-1], path, inventory)
            return
        for member in self._members:
            if member.parts[: len(source)] == source and not member.is_outside:
                inventory.count_one()
                below = path.joinpath(*map(clean, member.parts[len(source) :]))
                yield from _file_of_member(member, below, inventory)

    def read(self, source: tuple[str, ...], most: int = MAX_INNER) -> bytes:
        """One file. Raises `OSError` where it is not there, `Unreadable` where it is too large."""
        with ExitStack() as opened:
            inventory = Inventory(opened)
            for entry in self.files(source, Path(source[-1]), inventory):
                return read_from(entry, most, inventory)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source[-1])


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISREG, FILE), (stat.S_ISDIR, FOLDER), (stat.S_ISLNK, LINK))
    return next((kind for is_one, kind in kinds if is_one(mode)), OTHER)


def _file_of_member(member: _Member, path: Path, inventory: Inventory) -> Iterator[Entry]:
    """A file of the class's zip; what is inside of it where it is an archive. The whole of a submission is "."."""
    name = member.parts[-1]
    if is_hidden(path):
        return
    if member.is_link:
        inventory.left_out[path] = f"{path} is a link: it was not followed."
    elif path == Path() and is_archive(name):
        content = read_from(
            Entry(Path(clean(name)), member.size, member.changed, member.read), MAX_INNER, inventory
        )
        yield from _files_of_archive(io.BytesIO(content), name, path, inventory, 0)
    else:
        entry = Entry(path if path != Path() else Path(clean(name)), member.size, member.changed, member.read)
        yield from _entry_or_inside(entry, name, inventory, 0)


# ----- a folder -----


def _files_at(parent: int, name: str, path: Path, inventory: Inventory) -> Iterator[Entry]:
    """As `Top.files`, of what the folder that `parent` holds has under this name."""
    opened = _open(parent, name, path)
    inventory.opened.callback(os.close, opened)
    status = os.fstat(opened)
    if stat.S_ISDIR(status.st_mode):
        yield from _files_of_folder(opened, path, inventory)
    elif not stat.S_ISREG(status.st_mode):
        raise Unreadable(f"{clean(name)} is not a plain file: it was not read.")
    elif path == Path() and is_archive(name):
        file = inventory.opened.enter_context(os.fdopen(os.dup(opened), "rb"))
        yield from _files_of_archive(file, name, path, inventory, 0)
    else:
        path = path if path != Path() else Path(clean(name))
        entry = Entry(path, status.st_size, status.st_mtime, _reader(parent, (name,), status.st_uid))
        yield from _entry_or_inside(entry, name, inventory, 0)


def _open(parent: int, name: str, path: Path) -> int:
    """Raises `Unreadable` for a link, and for what cannot be opened."""
    try:
        return os.open(name, NO_LINKS, dir_fd=parent)
    except OSError as error:
        shown = clean(name) if path == Path() else path
        if error.errno == errno.ELOOP:
            raise Unreadable(f"{shown} is a link: it was not followed.") from error
        raise Unreadable(f"{shown} cannot be opened ({describe(error)}).") from error


def _files_of_folder(top: int, prefix: Path, inventory: Inventory) -> Iterator[Entry]:
    owner = os.fstat(top).st_uid
    folders: list[tuple[str, ...]] = [()]
    while folders:
        parts = folders.pop()
        try:
            with _Below(top, parts) as opened:
                found = sorted(_scan(opened, inventory))
        except OSError as error:
            folder = _shown(prefix, parts)
            inventory.left_out[folder] = f"{folder} was not read ({_not_opened(error)})."
            continue
        for name, status in found:
            below = (*parts, name)
            path = _shown(prefix, below)
            if is_hidden(Path(clean(name))):
                continue
            if stat.S_ISDIR(status.st_mode):
                if len(below) <= MAX_DEPTH:
                    folders.append(below)
                else:
                    inventory.left_out[path] = f"Folders more than {MAX_DEPTH} deep were not read."
            elif stat.S_ISREG(status.st_mode) and _is_anothers(status, owner):
                inventory.left_out[path] = f"{path} is a link to somebody else's file: it was not read."
            elif stat.S_ISREG(status.st_mode):
                entry = Entry(path, status.st_size, status.st_mtime, _reader(top, below, owner))
                yield from _entry_or_inside(entry, name, inventory, 0)
            elif stat.S_ISLNK(status.st_mode):
                inventory.left_out[path] = f"{path} is a link: it was not followed."
            else:
                inventory.left_out[path] = f"{path} is not a plain file: it was not read."


def _scan(folder: int, inventory: Inventory) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as found:
        for each in found:
            inventory.count_one()
            yield each.name, each.stat(follow_symlinks=False)


def _is_anothers(status: os.stat_result, owner: int) -> bool:
    """Whether a file is another user's, and has another name elsewhere: a hard link shows no other sign."""
    return status.st_nlink > 1 and status.st_uid != owner


def _not_opened(error: OSError) -> str:
    return "it became a link" if error.errno in (errno.ELOOP, errno.ENOTDIR) else describe(error)


def _shown(prefix: Path, parts: tuple[str, ...]) -> Path:
    return prefix.joinpath(*map(clean, parts))


class _Below:
    """A descriptor of what lies below a folder, opened step by step. Use as a context manager."""

    def __init__(self, top: int, parts: tuple[str, ...]) -> None:
        self._top, self._parts = top, parts

    def __enter__(self) -> int:
        self._opened = os.dup(self._top)
        for part in self._parts:
            try:
                below = os.open(part, NO_LINKS, dir_fd=self._opened)
            finally:
                os.close(self._opened)
            self._opened = below
        return self._opened

    def __exit__(self, *_: object) -> None:
        os.close(self._opened)


def _reader(top: int, parts: tuple[str, ...], owner: int) -> Callable[[int], bytes]:
    def read(most: int) -> bytes:
        with _Below(top, parts) as opened, os.fdopen(os.dup(opened), "rb") as file:
            status = os.fstat(opened)  # it may have been exchanged since it was listed
            if not stat.S_ISREG(status.st_mode) or _is_anothers(status, owner):
                raise Unreadable("it is no plain file of its own")
            return file.read(most)

    return read


# ----- archives -----


def _entry_or_inside(entry: Entry, name: str, inventory: Inventory, nesting: int) -> Iterator[Entry]:
    """The entry, or what is inside of it where it is an archive."""
    if not is_archive(name):
        if name.lower().endswith(OTHER_ARCHIVES):
            inventory.left_out[entry.path] = f"{entry.path} was not looked into: hand in a zip."
        yield entry
    elif nesting >= MAX_NESTING:
        deep = "it is an archive in an archive in an archive"
        inventory.left_out[entry.path] = f"{entry.path} was not looked into: {deep}."
    else:
        try:
            content = read_from(entry, MAX_INNER, inventory)
            yield from _files_of_archive(io.BytesIO(content), name, entry.path, inventory, nesting + 1)
        except Unreadable as reason:
            inventory.left_out[entry.path] = str(reason)


def read_from(entry: Entry, most: int, inventory: Inventory) -> bytes:
    """The file's bytes. Raises `Unreadable` for what is damaged, refused, or longer than `most`."""
    inventory.look_into(entry.path)
    if entry.size > most:
        raise Unreadable(f"{entry.path} has {entry.size:,} bytes, more than {most:,}: it was not read.")
    try:
        content = entry.read(most + 1)
    except Exception as error:  # the libraries raise more kinds than they name
        raise Unreadable(f"{entry.path} cannot be read ({describe(error)}).") from error
    if len(content) > most:
        raise Unreadable(f"{entry.path} unpacks to more than {most:,} bytes: it was not read.")
    return content


def _files_of_archive(
    file: IO[bytes], name: str, path: Path, inventory: Inventory, nesting: int
) -> Iterator[Entry]:
    """Raises `Unreadable` for what is no archive, or has more files than anyone hands in."""
    kind, members = ("zip", _members_of_zip) if name.lower().endswith(ZIP) else ("tar", _members_of_tar)
    shown = clean(name) if path == Path() else path
    inventory.look_into(shown)
    try:
        found = list(members(file, inventory))
    except Unreadable:
        raise
    except Exception as error:  # the libraries raise more kinds than they name
        raise Unreadable(f"{shown} is not a {kind} that can be read ({describe(error)}).") from error
    if any(each.has_backslashes for each in found):
        inventory.notes.append(f"{shown} was packed with backslashes, which were taken for folders.")
    for each in found:
        inside = Path(*map(clean, each.parts))
        if each.is_outside:
            inventory.left_out[inside] = f"{inside} points out of the {kind}: it was not read."
        elif is_hidden(inside):
            continue
        elif each.is_link:
            inventory.left_out[path / inside] = f"{path / inside} is a link: it was not followed."
        else:
            entry = Entry(path / inside, each.size, each.changed, each.read)
            yield from _entry_or_inside(entry, inside.name, inventory, nesting)


@dataclass(frozen=True)
class _Member:
    """A file in an archive."""

    name: str
    size: int
    changed: float
    is_link: bool
    read: Callable[[int], bytes]

    @property
    def has_backslashes(self) -> bool:
        return "\\" in self.name

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders and the name, however they are written."""
        return Path(self.name.replace("\\", "/")).parts

    @property
    def is_outside(self) -> bool:
        """Whether it points out of the archive."""
        return not self.parts or self.parts[0] == "/" or ".." in self.parts or bool(DRIVE.match(self.name))


def _members_of_zip(file: IO[bytes], inventory: Inventory) -> Iterator[_Member]:
    for member in _zip_members(inventory.opened.enter_context(zipfile.ZipFile(file))):
        inventory.count_one()
        yield member


def _zip_members(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        if not info.is_dir() and not info.filename.endswith("\\"):
            is_link = stat.S_ISLNK(info.external_attr >> 16)
            yield _Member(info.filename, info.file_size, _zip_time(info), is_link, _unpacker(archive, info))


def _unpacker(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[int], bytes]:
    def read(most: int) -> bytes:
        if info.flag_bits & ENCRYPTED:
            raise Unreadable("it has a password: hand it in without")
        with archive.open(info) as file:
            return file.read(most)

    return read


def _zip_time(info: zipfile.ZipInfo) -> float:
    """A zip has no time zone: its times are taken for UTC."""
    try:
        return float(calendar.timegm((*info.date_time, 0, 0, 0)))
    except (ValueError, OverflowError):
        return 0.0


def _members_of_tar(file: IO[bytes], inventory: Inventory) -> Iterator[_Member]:
    archive = inventory.opened.enter_context(tarfile.TarFile(fileobj=_unpacked(file)))
    for info in archive:
        inventory.count_one()
        if info.isreg() or info.issym() or info.islnk():
            yield _Member(info.name, info.size, float(info.mtime), not info.isreg(), _taker(archive, info))


def _unpacked(file: IO[bytes]) -> IO[bytes]:
    """A tar without its compression, by how it begins. Raises `Unreadable` past MAX_UNPACKED bytes."""
    begins = file.read(max(map(len, COMPRESSIONS)))
    file.seek(0)
    unpack = next((unpack for magic, unpack in COMPRESSIONS.items() if begins.startswith(magic)), None)
    if unpack is None:
        return file
    with unpack(file) as unpacked:
        content = unpacked.read(MAX_UNPACKED + 1)
    if len(content) > MAX_UNPACKED:
        raise Unreadable(f"It unpacks to more than {MAX_UNPACKED:,} bytes.")
    return io.BytesIO(content)


def _taker(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[int], bytes]:
    def read(most: int) -> bytes:
        file = cast("IO[bytes]", archive.extractfile(info))  # None for what is not a file, and these are
        return file.read(most)

    return read
