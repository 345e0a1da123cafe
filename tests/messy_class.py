"""Submissions as a real class sends them: each function makes one, and says what grade and what words it is due."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from synthetic_class import EVERYTHING, SOLUTIONS, Due, tasks_of

from lessonlib.checks import EXERCISES

RIGHT = {f"{name}.py": (SOLUTIONS / f"{name}.py").read_bytes() for name in EXERCISES}
OTHERS = {name: text for name, text in RIGHT.items() if name != "ex01.py"}
EX01 = RIGHT["ex01.py"]


def as_notebook(*cells: str | list[str]) -> bytes:
    return json.dumps({"cells": [{"cell_type": "code", "source": cell} for cell in cells]}).encode()


def as_zip(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def as_tar(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def laid(folder: Path, files: dict[str, bytes]) -> Path:
    """The folder with these files in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


Make = Callable[[Path], Due]
NO_EX01 = tasks_of("ex01")


def in_a_folder(name: str, note: str, content: bytes = EX01, lost: frozenset[str] = frozenset()) -> Make:
    """Everything right but exercise 01, whose file is called `name`."""

    def make(folder: Path) -> Due:
        laid(folder, {**OTHERS, name: content})
        return Due(lost, note=note)

    return make


def as_archive(ending: str, content: bytes, note: str = "", lost: frozenset[str] = frozenset()) -> Make:
    def make(folder: Path) -> Due:
        folder.with_name(folder.name + ending).write_bytes(content)
        return Due(lost, note=note)

    return make


def by_another_name(name: bytes) -> Make:
    """Everything right, in a folder of this name; the student is called what `shown_name` makes of it."""

    def make(folder: Path) -> Due:
        made = os.fsencode(folder.parent) + b"/" + name
        os.mkdir(made)
        laid(Path(os.fsdecode(made)), RIGHT)
        return Due()

    make.student = name  # type: ignore[attr-defined]
    return make


def damaged(folder: Path) -> Due:
    data = bytearray(as_zip({"ex01.py": EX01, **OTHERS}))
    data[50:90] = b"\xff" * 40  # inside of what is packed of the first
    folder.with_suffix(".zip").write_bytes(data)
    return Due(NO_EX01, note="ex01.py cannot be read (error: Error -3 while decompressing data")


def file_in_latin_1(folder: Path) -> Due:
    laid(folder, RIGHT)
    with open(os.fsencode(folder) + b"/caf\xe9.py", "wb") as file:
        file.write(b"x = 1\n")
    return Due()


def deep_folders(folder: Path) -> Due:
    laid(folder, RIGHT)
    opened = os.open(folder, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("a", dir_fd=opened)
        below = os.open("a", os.O_RDONLY, dir_fd=opened)
        os.close(opened)
        opened = below
    os.close(opened)
    return Due(note="Folders more than 50 deep were not read.")


def pipe_named_like_a_zip(folder: Path) -> Due:
    os.mkfifo(folder.with_suffix(".zip"))
    return Due(EVERYTHING, problem="is not a plain file: it was not read.")


def encrypted(folder: Path) -> Due:
    data = bytearray(as_zip({"ex01.py": EX01}))
    for start, offset in ((data.find(b"PK\x03\x04"), 6), (data.find(b"PK\x01\x02"), 8)):
        data[start + offset] |= 1
    folder.with_suffix(".zip").write_bytes(data)
    return Due(EVERYTHING, note="ex01.py cannot be read (it has a password: hand it in without).")


def lies_about_a_size(folder: Path) -> Due:
    data = bytearray(as_zip({"ex01.py": b"#" * (200 << 20)}))
    header = data.find(b"PK\x01\x02")
    data[header + 24 : header + 28] = (100).to_bytes(4, "little")
    folder.with_suffix(".zip").write_bytes(data)
    return Due(EVERYTHING, note="ex01.py cannot be read")


def many_files(folder: Path) -> Due:
    laid(folder, RIGHT)
    for number in range(20_001):
        (folder / f"{number}.txt").touch()
    return Due(EVERYTHING, problem="It has more than 20,000 files and folders.")


def link_to_a_folder(folder: Path) -> Due:
    laid(folder, {"ex02.py": RIGHT["ex02.py"]})
    (folder / "exercises").symlink_to(SOLUTIONS)
    return Due(EVERYTHING - tasks_of("ex02"), note="exercises is a link: it was not followed.")


def folder_named_like_a_file(folder: Path) -> Due:
    laid(folder, {**OTHERS, "ex01.py/ex01.py": EX01})
    return Due()


SHORT_LINES = as_notebook("x=1\n" * 1_500_000)
MESSES: dict[str, Make] = {
    "damaged_zip": damaged,
    "file_in_latin_1": file_in_latin_1,
    "deep_folders": deep_folders,
    "pipe_named_like_a_zip": pipe_named_like_a_zip,
    "encrypted_zip": encrypted,
    "lies_about_a_size": lies_about_a_size,
    "many_files": many_files,
    "link_to_a_folder": link_to_a_folder,
    "folder_named_like_a_file": folder_named_like_a_file,
    "short_lines": in_a_folder("ex01.ipynb", "its code has 6,000,000 characters", SHORT_LINES, NO_EX01),
    "deep_json": in_a_folder("ex01.ipynb", "not a notebook (RecursionError", b"[" * 100_000, NO_EX01),
    "half_a_notebook": in_a_folder("ex01.ipynb", "not a notebook (JSONDecodeError", b'{"cells": [', NO_EX01),
    "broken_cell": in_a_folder("ex01.ipynb", "cell 1 cannot be parsed", as_notebook("def x(:"), NO_EX01),
    "copy_from_canvas": in_a_folder("ex01-1.py", "There is no ex01.py: ex01-1.py was taken."),
    "copy_from_a_browser": in_a_folder("ex01 (1).py", "There is no ex01.py: ex01 (1).py was taken."),
    "in_capitals": in_a_folder("EX01.PY", "There is no ex01.py: EX01.PY was taken."),
    "text_file": in_a_folder("ex01.py.txt", "There is no ex01.py: ex01.py.txt was taken."),
    "by_hand": in_a_folder("01_mine.py", "There is no ex01.py: 01_mine.py was taken."),
    "copied_notebook": in_a_folder(
        "Copy of ex01.ipynb", "ex01.py was taken from Copy of ex01.ipynb.", as_notebook(EX01.decode())
    ),
    "empty_file": in_a_folder("ex01.py", "ex01.py is empty.", b"\n\n", NO_EX01),
    "utf_16": in_a_folder("ex01.py", "ex01.py cannot be loaded", EX01.decode().encode("utf-16"), NO_EX01),
    "star_import": in_a_folder("ex01.py", "", b"from math import *\n" + EX01),
    "tar_gz": as_archive(".tar.gz", as_tar({f"work/{name}": text for name, text in RIGHT.items()})),
    "backslashes": as_archive(
        ".zip", as_zip({f"work\\{name}": text for name, text in RIGHT.items()}), "packed with backslashes"
    ),
    "zip_in_a_zip": as_archive(".zip", as_zip({"work.zip": as_zip(RIGHT)})),
    "endless_gzip": as_archive(".tgz", as_tar({"ex01.py": b"#" * (300 << 20)}), "", EVERYTHING),
    "orders": as_archive(
        ".zip", as_zip({**RIGHT, "\x1b]0;owned\x07\u202e/ex01 (2).py": b"x = 1\n"}), "and not \ufffd]0;owned"
    ),
    "Zoe\u0308": by_another_name("Zoe\u0308".encode()),
    "अनुष्का": by_another_name("अनुष्का".encode()),
    "O’Brien (Anna)": by_another_name("O’Brien (Anna)".encode()),
    "学" * 84: by_another_name(("学" * 84).encode()),
    "caf%E9": by_another_name(b"caf\xe9"),
}


def add_messes(folder: Path) -> dict[str, Due]:
    """Student → the grade due, of one of each in the folder."""
    return {student: make(folder / student) for student, make in MESSES.items()}
