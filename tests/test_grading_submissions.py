"""What students hand in is read one by one: whatever is wrong with it is said of its file, and nothing else stops."""

from __future__ import annotations

import os
import random
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

import needs
import pytest
from messy_class import as_notebook, as_tar, as_zip
from synthetic_class import SOLUTIONS, solution

from lessonlib.checks import EXERCISES
from lessonlib.grading import archives, cells, reader, submissions
from lessonlib.grading.cells import functions_files
from lessonlib.grading.layouts import FOLDERS, Handin, Part, collect
from lessonlib.grading.names import file_stem, shown_name
from lessonlib.grading.reader import Reader
from lessonlib.grading.submissions import Submission

EX01 = (SOLUTIONS / "ex01.py").read_bytes()
EX02 = (SOLUTIONS / "ex02.py").read_bytes()


def read(folder: Path, *wanted: str, name: str = "") -> Submission:
    """The only submission in the folder, or the one of this name."""
    handins = collect(folder, FOLDERS).handins
    (handin,) = [each for each in handins if name in ("", each.student)]
    return submissions.read(folder, handin, wanted or ["ex01", "ex02"])


# ----- one bad submission among good ones -----


def damaged_zip(folder: Path) -> None:
    data = bytearray(as_zip({"ex01.py": EX01, "ex02.py": EX02}))
    data[50:90] = b"\xff" * 40  # inside of what is packed of the first
    (folder / "mallory.zip").write_bytes(data)


def name_in_latin_1(folder: Path) -> None:
    (folder / "mallory").mkdir()
    (folder / "mallory" / "ex02.py").write_bytes(EX02)
    with open(os.fsencode(folder) + b"/mallory/caf\xe9.py", "wb") as file:
        file.write(b"x = 1\n")


def deep_folders(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    for name in ["mallory", *["a"] * 1500]:
        os.mkdir(name, dir_fd=opened)
        below = os.open(name, os.O_RDONLY, dir_fd=opened)
        os.close(opened)
        opened = below
    with os.fdopen(os.open("ex01.py", os.O_WRONLY | os.O_CREAT, dir_fd=opened), "wb") as file:
        file.write(EX01)
    os.close(opened)


def pipe_named_like_a_zip(folder: Path) -> None:
    os.mkfifo(folder / "mallory.zip")


def notebook_of_short_lines(folder: Path) -> None:
    (folder / "mallory").mkdir()
    (folder / "mallory" / "ex01.ipynb").write_bytes(as_notebook("x=1\n" * 1_500_000))


def notebook_of_one_long_line(folder: Path) -> None:
    (folder / "mallory").mkdir()
    (folder / "mallory" / "ex01.ipynb").write_bytes(as_notebook("x=1;" * 50_000 + "\n" + EX01.decode()))


def endless_gzip(folder: Path) -> None:
    (folder / "mallory.tar.gz").write_bytes(as_tar({"ex01.py": b"#" * (300 << 20)}))


def encrypted_zip(folder: Path) -> None:
    data = bytearray(as_zip({"ex01.py": EX01}))
    for start, offset in ((data.find(b"PK\x03\x04"), 6), (data.find(b"PK\x01\x02"), 8)):
        data[start + offset] |= 1
    (folder / "mallory.zip").write_bytes(data)


MESSES: dict[Callable[[Path], None], str] = {
    damaged_zip: "ex01.py cannot be read (error: Error -3 while decompressing data",
    name_in_latin_1: "There is no ex01.py in the submission.",
    deep_folders: "Folders more than 50 deep were not read.",
    pipe_named_like_a_zip: "mallory.zip is not a plain file: it was not read.",
    notebook_of_short_lines: "ex01.ipynb cannot be used: its code has 6,000,000 characters, more than 1,048,576.",
    notebook_of_one_long_line: "ex01.py was taken from ex01.ipynb.",
    endless_gzip: "It unpacks to more than 268,435,456 bytes.",
    encrypted_zip: "ex01.py cannot be read (it has a password: hand it in without).",
}


@pytest.fixture
def class_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that is removed afterwards, however deep: Python's own way out is a recursion."""
    yield tmp_path
    subprocess.run(["rm", "-rf", str(tmp_path)], check=True)


@pytest.mark.parametrize("mess", MESSES, ids=lambda mess: mess.__name__)
def test_what_is_wrong_is_said_of_the_file_and_the_others_are_read(mess, class_folder: Path) -> None:
    mess(class_folder)
    for student in ("anna", "zoe"):
        (class_folder / student).mkdir()
        (class_folder / student / "ex01.py").write_bytes(EX01)
    collected = collect(class_folder)
    started = time.monotonic()
    with Reader(class_folder, ["ex01", "ex02"], seconds=60) as reading:
        anna, mallory, zoe = map(reading.read, collected.handins)
    assert time.monotonic() - started < 60
    assert not collected.left_out
    assert anna.files == zoe.files == {"ex01": EX01}
    sentences = [mallory.problem, *mallory.unreadable.values(), *mallory.notes]
    if "ex02" in mallory.files and not mallory.unreadable:
        sentences.append("There is no ex01.py in the submission.")  # as the job says it
    assert any(MESSES[mess] in sentence for sentence in sentences), sentences


def test_the_rest_of_a_submission_is_read_where_a_file_is_damaged(tmp_path: Path) -> None:
    damaged_zip(tmp_path)
    mallory = read(tmp_path)
    assert mallory.files == {"ex02": EX02}
    assert list(mallory.unreadable) == ["ex01"]


# ----- the reader's process -----


def ending_on(monkeypatch, *paths: str, end: Callable[[], None]) -> None:
    """Let looking into these paths end or hang this process, as a library with a fault would."""
    look_into = archives.Inventory.look_into

    def looking(self, path) -> None:
        look_into(self, path)
        if str(path) in paths:
            end()

    monkeypatch.setattr(archives.Inventory, "look_into", looking)


class InThisProcess(Reader):
    """A reader whose process is a fork of this one, so that what a test has patched holds there too."""

    def _ready(self):
        get_context = reader.multiprocessing.get_context
        try:
            reader.multiprocessing.get_context = lambda method: get_context("fork")
            return super()._ready()
        finally:
            reader.multiprocessing.get_context = get_context


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        (lambda: os._exit(7), "ex01.py ended the process that read it (exit code 7)."),
        (lambda: time.sleep(600), "ex01.py could not be read within 1 seconds."),
    ],
)
def test_a_file_that_ends_the_reader_is_named_and_the_rest_is_read(
    end, sentence: str, monkeypatch, tmp_path: Path
) -> None:
    (tmp_path / "mallory").mkdir()
    (tmp_path / "mallory" / "ex01.py").write_bytes(EX01)
    (tmp_path / "mallory" / "ex02.py").write_bytes(EX02)
    ending_on(monkeypatch, "ex01.py", end=end)
    handin = Handin("mallory", (Part(("mallory",)),))
    with InThisProcess(tmp_path, ["ex01", "ex02"], seconds=1) as reading:
        mallory = reading.read(handin)
        again = reading.read(handin)
    assert mallory.files == again.files == {"ex02": EX02}
    assert mallory.unreadable == {"ex01": sentence}
    assert mallory.digest == again.digest


def test_a_reader_that_ends_again_and_again_gives_up(monkeypatch, tmp_path: Path) -> None:
    solution(tmp_path / "mallory")
    every = [f"{name}.py" for name in EXERCISES]
    ending_on(monkeypatch, *every, end=lambda: os._exit(7))
    with InThisProcess(tmp_path, list(EXERCISES), seconds=20) as reading:
        mallory = reading.read(Handin("mallory", (Part(("mallory",)),)))
    assert mallory.problem == "ex04.py ended the process that read it (exit code 7)."


# ----- fuzzing -----


def fuzzed(seed: int, original: bytes) -> bytes:
    """`original` with some of its bytes flipped, cut out, doubled, or replaced."""
    rng = random.Random(seed)
    data = bytearray(original)
    for _ in range(rng.randint(1, 6)):
        start = rng.randrange(len(data) or 1)
        length = min(len(data) - start, rng.choice((1, 1, 2, 4, 40, 400)))
        match rng.randrange(5):
            case 0:
                data[start : start + length] = rng.randbytes(length)
            case 1:
                del data[start : start + length]
            case 2:
                data[start:start] = data[start : start + length]
            case 3:
                data[start : start + length] = bytes([rng.choice((0, 255, 0x22, 0x5C, 0x7B))]) * length
            case _:
                del data[start if rng.random() < 0.1 else start + length :]
    return bytes(data)


ORIGINALS = {
    "mallory.zip": as_zip(
        {"ex01.py": EX01, "work/ex02.py": EX02, "01_mine.ipynb": as_notebook(EX01.decode())}
    ),
    "mallory.tar.gz": as_tar({"ex01.py": EX01, "work/ex02.py": EX02}),
    "mallory.tar": as_tar({"ex01.py": EX01, "work/ex02.py": EX02}, "w:"),
    "mallory/01_mine.ipynb": as_notebook(
        "import math\nx = [1, 2]\n", EX01.decode().splitlines(keepends=True)
    ),
}


def fuzz(folder: Path, seeds: range) -> dict[str, int]:
    """Read damaged files; how many of them were read whole, in part and not at all."""
    counts = {"whole": 0, "in part": 0, "not at all": 0}
    (folder / "mallory").mkdir()
    for seed in seeds:
        name = list(ORIGINALS)[seed % len(ORIGINALS)]
        (folder / name).write_bytes(fuzzed(seed, ORIGINALS[name]))
        handin = Handin("mallory", (Part(Path(name).parts[:1]),))
        started = time.process_time()
        found = submissions.read(folder, handin, ["ex01", "ex02"])
        assert time.process_time() - started < 5, seed
        assert bool(found.problem) != bool(found.files or found.unreadable), seed
        sentences = [found.problem, *found.unreadable.values(), *found.notes]
        assert all(len(each) < 2_000 and each.isprintable() for each in sentences), (seed, sentences)
        if found.problem or not found.files:
            counts["not at all"] += 1
        else:
            counts["whole" if found.files.get("ex01") == EX01 and not found.unreadable else "in part"] += 1
        (folder / name).unlink()
    return counts


def test_hundreds_of_damaged_files_are_read_as_far_as_they_can_be(tmp_path: Path) -> None:
    counts = fuzz(tmp_path, range(400))
    assert min(counts.values()) > 0, counts


@pytest.mark.prove
def test_ten_thousand_damaged_files_are_read_as_far_as_they_can_be(tmp_path: Path) -> None:
    started = time.monotonic()
    print(fuzz(tmp_path, range(1_000, 11_000)), f"{time.monotonic() - started:.0f} s", flush=True)


# ----- folders and archives -----


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_tars_are_read_as_zips_are(ending: str, tmp_path: Path) -> None:
    mode = {"tgz": "gz", "tar": ""}.get(ending, ending.rpartition(".")[2])
    (tmp_path / f"ada.{ending}").write_bytes(as_tar({"work/ex01.py": EX01}, f"w:{mode}"))
    assert read(tmp_path, name="ada").files == {"ex01": EX01}


def test_a_link_in_a_tar_is_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "ada.tar", "w") as archive:
        for name, kind in (("ex01.py", tarfile.SYMTYPE), ("ex02.py", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(SOLUTIONS / name)
            archive.addfile(info)
    assert read(tmp_path).unreadable == {
        name: f"{name}.py is a link: it was not followed." for name in ("ex01", "ex02")
    }


def test_an_archive_in_a_folder_or_in_an_archive_is_looked_into(tmp_path: Path) -> None:
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada" / "work.zip").write_bytes(
        as_zip({"ex01.py": EX01, "more.tgz": as_tar({"ex02.py": EX02})})
    )
    assert read(tmp_path).files == {"ex01": EX01, "ex02": EX02}
    deep = as_zip({"b.zip": as_zip({"c.zip": as_zip({"ex01.py": EX01})})})
    (tmp_path / "ada" / "work.zip").write_bytes(deep)
    note = "work.zip/b.zip/c.zip was not looked into: it is an archive in an archive in an archive."
    assert note in read(tmp_path).problem


def test_two_files_of_one_name_are_not_guessed_at(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "ada" / name).mkdir(parents=True)
        (tmp_path / "ada" / name / "ex01.py").write_bytes(EX01)
    sentence = "ex01.py is there more than once (a/ex01.py and b/ex01.py): neither was taken."
    assert read(tmp_path).unreadable == {"ex01": sentence}


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "ada.zip").write_bytes(as_zip({"ex01.py": b"#" * (200 << 20)}))
    assert read(tmp_path).unreadable == {
        "ex01": "ex01.py has 209,715,200 bytes, more than 1,048,576: it was not read."
    }


def test_a_zip_that_lies_about_a_size_is_not_unpacked_further(tmp_path: Path) -> None:
    data = bytearray(as_zip({"ex01.py": b"#" * (200 << 20)}))
    header = data.find(b"PK\x01\x02")
    data[header + 24 : header + 28] = (100).to_bytes(4, "little")
    (tmp_path / "ada.zip").write_bytes(data)
    assert list(read(tmp_path).unreadable) == ["ex01"]


def test_what_points_out_of_an_archive_is_not_read(tmp_path: Path) -> None:
    for name in ("../ex01.py", "/ex01.py", "C:\\ex01.py", "a/../../ex01.py", "a\\..\\ex01.py"):
        (tmp_path / "ada.zip").write_bytes(as_zip({name: EX01, "ex02.py": EX02}))
        ada = read(tmp_path)
        assert ada.files == {"ex02": EX02}
        assert ada.unreadable["ex01"].endswith("points out of the zip: it was not read."), name


def test_hidden_folders_and_installed_packages_are_not_walked_through(tmp_path: Path) -> None:
    for name in (".git/objects", ".venv/lib", "node_modules/a", "__MACOSX"):
        (tmp_path / "ada" / name).mkdir(parents=True)
        (tmp_path / "ada" / name / "ex01.py").write_bytes(b"x = 1\n")
    (tmp_path / "ada" / "ex01.py").write_bytes(EX01)
    assert read(tmp_path).files == {"ex01": EX01}


# ----- exchanged while it is read -----


@pytest.mark.parametrize("deep", [0, 1])
def test_a_folder_that_is_exchanged_for_a_link_is_not_followed(deep: int, tmp_path: Path) -> None:
    """Another thread makes it now a folder, now a link to the worked answers, as quickly as it can."""
    own, secret = b"x = 1\n" * 200, tmp_path / "secret"
    solution(secret)
    (tmp_path / "class").mkdir()
    ada = tmp_path / "class" / "ada"
    place = ada / "work" if deep else ada
    place.mkdir(parents=True)
    (place / "ex01.py").write_bytes(own)
    (tmp_path / "link").symlink_to(secret)
    over = threading.Event()

    def exchange() -> None:
        while not over.is_set():
            os.rename(place, tmp_path / "aside")
            os.rename(tmp_path / "link", place)
            os.rename(place, tmp_path / "link")
            os.rename(tmp_path / "aside", place)

    exchanging = threading.Thread(target=exchange)
    exchanging.start()
    try:
        handin = Handin("ada", (Part(("ada",)),))
        found = [submissions.read(tmp_path / "class", handin, ["ex01"]) for _ in range(300)]
    finally:
        over.set()
        exchanging.join()
    assert {each.files.get("ex01", b"") for each in found} <= {own, b""}


@pytest.mark.parametrize("place", ["ada", "ada/week1", "ada/week1/ex01.py"])
def test_a_link_that_came_after_the_listing_is_not_followed(place: str, tmp_path: Path) -> None:
    (tmp_path / "ada" / "week1").mkdir(parents=True)
    (tmp_path / "ada" / "week1" / "ex01.py").write_bytes(b"x = 1\n")
    (tmp_path / "secret" / "week1").mkdir(parents=True)
    (tmp_path / "secret" / "week1" / "ex01.py").write_bytes(EX01)
    with archives.Top(tmp_path) as top, ExitStack() as opened:
        (entry,) = top.files(("ada",), PurePosixPath(), archives.Inventory(opened))
        secret = tmp_path / "secret" / PurePosixPath(place).relative_to("ada")
        (tmp_path / place).rename(tmp_path / "aside")
        (tmp_path / place).symlink_to(secret)
        if place == "ada":  # held by its descriptor: it is still the folder that was listed
            assert entry.read(100) == b"x = 1\n"
        else:
            with pytest.raises(OSError, match=r"Too many levels of symbolic links|Not a directory"):
                entry.read(100)


def test_a_hard_link_to_somebody_elses_file_is_not_read(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        needs.ROOT.skip()
    (tmp_path / "ada").mkdir()
    (tmp_path / "secret.py").write_bytes(EX01)
    os.link(tmp_path / "secret.py", tmp_path / "ada" / "ex01.py")
    (tmp_path / "ada" / "ex02.py").write_bytes(EX02)
    for name in ("ada", "ada/ex02.py"):
        os.chown(tmp_path / name, 60900, 60900)
    (tmp_path / "secret.py").chmod(0o600)
    handin = Handin("ada", (Part(("ada",)),))
    ada = submissions.read(tmp_path, handin, ["ex01", "ex02"])
    assert ada.files == {"ex02": EX02}
    assert ada.unreadable == {"ex01": "ex01.py is a link to somebody else's file: it was not read."}


# ----- names -----


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9", "caf%E9"),
        ("Zoë".encode(), "Zoë"),
        ("Zoe\u0308".encode(), "Zoe\u0308"),
        ("अनुष्का".encode(), "अनुष्का"),
        ("O’Brien (Anna)".encode(), "O’Brien (Anna)"),
        (("学" * 84).encode(), "学" * 84),
        (b"a\x1b[31mb", "a%1B[31mb"),
        ("a\u202eb".encode(), "a%E2%80%AEb"),
    ],
)
def test_names_are_names(name: bytes, shown: str, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/" + name
    os.mkdir(folder)
    with open(folder + b"/ex01.py", "wb") as file:
        file.write(EX01)
    collected = collect(tmp_path)
    (handin,) = collected.handins
    assert (handin.student, collected.left_out) == (shown, ())
    found = submissions.read(tmp_path, handin, ["ex01"])
    assert (found.student, found.files) == (shown, {"ex01": EX01})
    assert shown_name(shown) == shown
    (tmp_path / f"{file_stem(shown)}.html").touch()


def test_a_file_of_a_records_has_a_name_of_its_own() -> None:
    long = ["学" * 84, "学" * 83 + "問"]
    assert len({file_stem(name) for name in long}) == 2
    assert file_stem("ada") == "ada"


# ----- notebooks -----


def test_a_notebooks_last_functions_are_taken_with_what_they_need() -> None:
    text = functions_files(
        as_notebook(
            "import numpy as np\nimport lessonlib\nfrom collections import deque",
            "NOBODY = -1\ncar = Elevator()\ncar.show()",
            "def refill(*state):\n    return 1  # first try",
            "%timeit refill()\n@staticmethod\ndef refill(*state):\n    return 2  # 100%\nrefill()",
        ),
        [EXERCISES["ex02"]],
    )["ex02"]
    assert "import numpy as np" in text
    assert "NOBODY = -1" in text
    assert "# 100%" in text
    assert text.index("first try") < text.index("# cell 4\n@staticmethod\ndef refill")
    assert not any(word in text for word in ("lessonlib", "Elevator", "show", "timeit"))
    compile(text, "ex02.py", "exec")


def test_lines_are_counted_as_python_does() -> None:
    """A form feed and a line separator end no line; a carriage return does. Statements of one line come once."""
    source = "x = '\u2028'\x0c\r\ny = 1; z = [\n2]\rdef refill(): return x, y, z\n"
    text = functions_files(as_notebook(source), [EXERCISES["ex02"]])["ex02"]
    assert text.count("y = 1; z = [\n2]") == 1
    scope: dict = {}
    exec(text, scope)
    assert scope["refill"]() == ("\u2028", 1, [2])


@pytest.mark.parametrize(
    ("notebook", "sentence"),
    [
        (b"\xff\xfe", "not a notebook"),
        (b"[1, 2]", "not a notebook"),
        (b'{"cells": [{"cell_type": "code", "source": 5}]}', "not a notebook"),
        (b"[" * 100_000, "not a notebook"),
        (as_notebook("def refill(:"), "cell 1 cannot be parsed"),
        (as_notebook("x" * (cells.MAX_CODE + 1)), "its code has 1,048,577 characters, more than 1,048,576"),
    ],
)
def test_what_is_not_a_notebook_is_said(notebook: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        functions_files(notebook, [EXERCISES["ex02"]])


def test_a_notebook_without_the_exercise_gives_nothing() -> None:
    assert functions_files(as_notebook("def other(): ..."), list(EXERCISES.values())) == {}


def test_a_broken_cell_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada" / "01_mine.ipynb").write_bytes(as_notebook(EX01.decode(), "def x(:"))
    (tmp_path / "ada" / "02_mine.ipynb").write_bytes(as_notebook("def refill(:"))
    ada = read(tmp_path)
    assert set(ada.files) == {"ex01"}
    assert ada.unreadable["ex02"].startswith(
        "02_mine.ipynb cannot be used: cell 1 cannot be parsed (SyntaxError"
    )
