"""`lesson start`: a course is laid, brought up to date around what a student changed, and never half."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lessonlib import layout
from lessonlib.checks import check
from lessonlib.cli import main
from lessonlib.errors import CourseError
from lessonlib.start import beside_notebook, fingerprint, start

ROOT = Path(__file__).parents[1]
FIRST = layout.FIRST
SECOND = "notebooks/02_the_waitlist_scheduler.ipynb"
NOBODY = 65534
NUM_RESULTS = len(list((ROOT / layout.RESULTS).iterdir()))


def notebook(*sources: str, printed: str = "stored") -> str:
    """A notebook of code cells, each with one line of output."""
    outputs = [new_output("stream", name="stdout", text=printed)]
    cells = [new_code_cell(source, outputs=outputs, execution_count=1) for source in sources]
    return nbformat.writes(new_notebook(cells=[new_markdown_cell("# 01"), *cells]))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A course of a few small files, as a wheel carries one."""
    folder = tmp_path / "carried"
    for name in ("notebooks/rides", layout.EXERCISES, layout.SOLUTIONS, layout.RESULTS):
        (folder / name).mkdir(parents=True)
    write(folder, FIRST, notebook("floors = 8"))
    write(folder, SECOND, notebook("slots = 4"))
    write(folder, "notebooks/rides/01_the_elevator_that_waits.json.gz", "ride")
    write(folder, f"{layout.RESULTS}/slots.json", "{}")
    for name in ("ex01.py", "ex02.py"):
        write(folder, f"solutions/{name}", f"# {name}\n" + region("return 1"))
    return folder


def region(answer: str) -> str:
    return (
        "def f():\n    # >>> solution\n    # stub: raise NotImplementedError\n    "
        + answer
        + "\n    # <<< solution\n"
    )


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def upgraded(root: Path) -> Path:
    """The course's next version: everything but the second exercise is new, one file is no more, one has come."""
    write(root, FIRST, notebook("floors = 9"))
    write(root, SECOND, notebook("slots = 5"))
    (root / "notebooks/rides/01_the_elevator_that_waits.json.gz").unlink()
    write(root, f"{layout.RESULTS}/slots.json", '{"slots": 5}')
    write(root, f"{layout.RESULTS}/blocks.json", "{}")
    write(root, "solutions/ex01.py", "# the first, better\n" + region("return 1"))
    return root


# ----- a first start -----


def test_the_whole_course_is_laid_and_what_to_open_is_said(tmp_path: Path) -> None:
    lines = start(tmp_path / "new" / "course")
    laid = tree(tmp_path / "new" / "course")
    manifest = json.loads(laid.pop(layout.MANIFEST))
    assert laid == layout.handed_out(ROOT)
    assert set(manifest["files"]) == set(laid)
    assert f"7 notebooks, 8 exercises, 8 worked answers and {NUM_RESULTS} recorded results" in lines[0]
    assert lines[-1].startswith(f"Open notebook 01: cd {tmp_path}/new/course && ")
    assert lines[-1].endswith("lesson lab")
    assert "nothing is new" in start(tmp_path / "new" / "course")[0]
    assert {path.name for path in (tmp_path / "new" / "course").iterdir()} == {
        *("notebooks", "exercises", "solutions", "benchmarks"),
        layout.MANIFEST,
    }


def test_a_classes_folder_has_no_worked_answers_and_no_history(tmp_path: Path, capsys) -> None:
    assert main(["start", str(tmp_path / "class"), "--class"]) == 0
    assert "worked answers" not in capsys.readouterr().out
    laid = tmp_path / "class"
    assert (laid / FIRST).is_file()
    assert len(list((laid / layout.EXERCISES).glob("ex*.py"))) >= 7
    assert not (laid / layout.SOLUTIONS).exists()
    assert not (laid / ".git").exists()
    texts = [path.read_text(encoding="utf-8") for path in laid.rglob("*.py")]
    assert not any("# >>> solution" in text for text in texts)


def test_without_a_name_it_is_the_folder_around_or_a_new_one(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    start(root=root)
    assert (tmp_path / layout.NAME / FIRST).is_file()
    monkeypatch.chdir(tmp_path / layout.NAME / "notebooks")
    assert "nothing is new" in start(root=root)[0]
    monkeypatch.chdir(ROOT / "tests")
    with pytest.raises(CourseError, match="is a clone of the course and has all of it: `git pull`"):
        start(root=root)


def test_an_environment_and_hidden_files_may_lie_there(root: Path, tmp_path: Path) -> None:
    for name in (".git/config", "env/pyvenv.cfg"):
        (tmp_path / "course" / name).parent.mkdir(parents=True)
        write(tmp_path / "course", name, "")
    start(tmp_path / "course", root)
    assert (tmp_path / "course" / FIRST).is_file()


def test_commands_work_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(tmp_path / "course")
    solved = (tmp_path / "course" / "solutions" / "ex01.py").read_bytes()
    monkeypatch.chdir(tmp_path / "course" / "notebooks")
    assert check("ex01").exit_code == 1
    (tmp_path / "course" / "exercises" / "ex01.py").write_bytes(solved)
    assert check("ex01").exit_code == 0


# ----- an upgrade -----


def test_unchanged_files_are_replaced_and_changed_ones_stay(root: Path, tmp_path: Path) -> None:
    course = tmp_path / "course"
    start(course, root, "1.0.0")
    write(course, "exercises/ex01.py", "def f():\n    return 'mine'\n")
    write(course, SECOND, notebook("slots = 4", "mine = 1"))
    write(course, FIRST, notebook("floors = 8", "", printed="run by a student"))  # run: one more empty cell
    write(course, "notebooks/notes.txt", "mine")
    lines = start(course, upgraded(root), "1.1.0")
    found = tree(course)
    assert found["exercises/ex01.py"] == b"def f():\n    return 'mine'\n"
    assert b"mine = 1" in found[SECOND]
    assert found["notebooks/notes.txt"] == b"mine"
    assert b"floors = 9" in found[FIRST]
    assert found["exercises/ex01.new.py"] == layout.handed_out(root)["exercises/ex01.py"]
    assert b"slots = 5" in found["notebooks/02_the_waitlist_scheduler.new.ipynb"]
    assert found[f"{layout.RESULTS}/slots.json"] == b'{"slots": 5}'
    assert found["notebooks/rides/01_the_elevator_that_waits.json.gz"] == b"ride"
    assert lines[:-1] == [
        f"{course} holds the course 1.1.0, until now 1.0.0: 1 new, 3 replaced.",
        "You changed exercises/ex01.py: it stays, and the new one is exercises/ex01.new.py.",
        f"You changed {SECOND}: it stays, and the new one is notebooks/02_the_waitlist_scheduler.new.ipynb.",
        "No longer in the course, and left alone: notebooks/rides/01_the_elevator_that_waits.json.gz.",
    ]
    again = start(course, root, "1.1.0")
    assert tree(course) == found
    assert "nothing is new" in again[0]
    assert again[1] == f"Yours, and left alone: exercises/ex01.py, {SECOND}."


def test_a_new_version_beside_is_kept_current_until_it_is_written_in(root: Path, tmp_path: Path) -> None:
    course = tmp_path / "course"
    start(course, root, "1.0.0")
    write(course, "exercises/ex01.py", "mine")
    start(course, upgraded(root), "1.1.0")
    write(root, "solutions/ex01.py", "# third\n" + region("return 1"))
    start(course, root, "1.2.0")
    assert (course / "exercises" / "ex01.new.py").read_text().startswith("# third")
    write(course, "exercises/ex01.new.py", "mine too")
    write(root, "solutions/ex01.py", "# fourth\n" + region("return 1"))
    lines = start(course, root, "1.3.0")
    assert (course / "exercises" / "ex01.new.py").read_text() == "mine too"
    assert (course / "exercises" / "ex01.new2.py").read_text().startswith("# fourth")
    assert (course / "exercises" / "ex01.py").read_text() == "mine"
    assert "You changed exercises/ex01.py: it stays, and the new one is exercises/ex01.new2.py." in lines


def test_taking_the_new_version_counts_as_unchanged(root: Path, tmp_path: Path) -> None:
    course = tmp_path / "course"
    start(course, root, "1.0.0")
    write(course, "exercises/ex01.py", "mine")
    start(course, upgraded(root), "1.1.0")
    (course / "exercises" / "ex01.new.py").replace(course / "exercises" / "ex01.py")
    write(root, "solutions/ex01.py", "# third\n" + region("return 1"))
    assert start(course, root, "1.2.0")[0].endswith("the course 1.2.0, until now 1.1.0: 2 replaced.")
    assert (course / "exercises" / "ex01.py").read_text().startswith("# third")
    assert not (course / "exercises" / "ex01.new.py").exists()


def test_a_file_that_was_removed_comes_back(root: Path, tmp_path: Path) -> None:
    """So a student begins an exercise anew."""
    start(tmp_path / "course", root)
    (tmp_path / "course" / "exercises" / "ex01.py").unlink()
    assert "1 new" in start(tmp_path / "course", root)[0]
    assert (tmp_path / "course" / "exercises" / "ex01.py").is_file()


def test_a_file_of_the_students_by_the_name_of_a_new_one_stays(root: Path, tmp_path: Path) -> None:
    start(tmp_path / "course", root, "1.0.0")
    write(tmp_path / "course", f"{layout.RESULTS}/blocks.json", "mine")
    start(tmp_path / "course", upgraded(root), "1.1.0")
    assert (tmp_path / "course" / layout.RESULTS / "blocks.json").read_text() == "mine"
    assert (tmp_path / "course" / layout.RESULTS / "blocks.new.json").read_text() == "{}"


def test_a_start_that_was_cut_off_can_be_run_again(root: Path, tmp_path: Path) -> None:
    """Its manifest is there, some files are not, and what it was writing lies about."""
    course = tmp_path / "course"
    start(course, root)
    whole = tree(course)
    shutil.rmtree(course / "solutions")
    (course / ".lesson-cutoff" / "new").mkdir(parents=True)
    start(course, root)
    assert tree(course) == whole
    assert not (course / ".lesson-cutoff").exists()


# ----- what counts as a change of a notebook -----


def test_running_a_notebook_is_no_change_and_writing_in_it_is() -> None:
    def of(text: str) -> str:
        return fingerprint("a.ipynb", text.encode()).source

    stored = notebook("x = 1", "print(x)")
    run = json.loads(notebook("x = 1", "print(x)", "", printed="another machine's"))
    run["metadata"]["widgets"] = {"state": {}}
    run["cells"][1]["execution_count"] = 77
    assert of(stored) == of(json.dumps(run))
    assert of(stored) != of(notebook("x = 2", "print(x)"))
    assert of(stored) != of(notebook("print(x)", "x = 1"))
    assert of(stored) != of(notebook("x = 1", "print(x)", "x"))
    assert of(stored) != of("no notebook")
    assert fingerprint("a.ipynb", b"\xff[" * 10_000).source


# ----- where it cannot -----


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ("thesis.tex", r"holds something else \(thesis\.tex\): name a new or an empty folder"),
        ("notebooks/lecture.ipynb", r"holds something else \(notebooks\)"),
        ("lessonlib/layout.py", "is a clone of the course and has all of it: `git pull`"),
        (layout.MANIFEST, "cannot read .*json, which says what you have changed: name a new folder"),
    ],
)
def test_what_is_not_ours_is_left_as_it_was(there: str, message: str, root: Path, tmp_path: Path) -> None:
    course = tmp_path / "course"
    (course / there).parent.mkdir(parents=True)
    write(course, there, "precious")
    with pytest.raises(CourseError, match=message):
        start(course, root)
    assert tree(course) == {there: b"precious"}


def test_another_course_that_was_started_there_is_named(root: Path, tmp_path: Path) -> None:
    course = tmp_path / "course"
    start(course, root)
    manifest = json.loads((course / layout.MANIFEST).read_text())
    write(course, layout.MANIFEST, json.dumps({**manifest, "course": "knitting"}))
    with pytest.raises(
        CourseError, match=r"holds another course \(knitting\): name a new or an empty folder"
    ):
        start(course, root)


def test_a_file_is_no_folder_and_a_folder_no_file(root: Path, tmp_path: Path) -> None:
    write(tmp_path, "course", "precious")
    with pytest.raises(CourseError, match="course is a file: name a new or an empty folder"):
        start(tmp_path / "course", root)
    with pytest.raises(CourseError, match="Not a directory; nothing was changed, choose another place"):
        start(tmp_path / "course" / "below", root)
    start(tmp_path / "here", root)
    (tmp_path / "here" / "exercises" / "ex01.py").unlink()
    (tmp_path / "here" / "exercises" / "ex01.py").mkdir()
    with pytest.raises(CourseError, match=r"ex01\.py is a folder, and the course has a file of that name"):
        start(tmp_path / "here", upgraded(root))


def start_in_a_small_room(folder: Path, root: Path) -> str:
    """What `start` says where no file may be larger than 64 KiB, as on a disk that is nearly full."""
    program = (
        "import resource, sys; from pathlib import Path; from lessonlib.start import start\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))\n"
        "start(sys.argv[1], Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", program, str(folder), str(root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


def test_a_full_disk_leaves_nothing_half_laid(root: Path, tmp_path: Path) -> None:
    course = tmp_path / "new" / "course"
    start(tmp_path / "old", root)
    before = tree(tmp_path / "old")
    write(root, f"{layout.RESULTS}/slots.json", " " * (1 << 17))
    assert "File too large; nothing was changed, choose another place" in start_in_a_small_room(course, root)
    assert not course.parent.exists()
    start_in_a_small_room(tmp_path / "old", root)
    assert tree(tmp_path / "old") == before
    assert not list((tmp_path / "old").glob(".lesson-*"))


@contextmanager
def a_plain_user() -> Iterator[None]:
    """Root may write anywhere, so for a while it is nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public(root: Path) -> Iterator[Path]:
    """A folder that a plain user owns, with the course to lay inside it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(root, folder / "carried")
        (folder / "home").mkdir()
        folder.chmod(0o755)
        if os.geteuid() == 0:
            os.chown(folder / "home", NOBODY, NOBODY)
        yield folder


def test_a_folder_that_cannot_be_written(public: Path) -> None:
    (public / "home" / "course").mkdir(mode=0o555)
    for course in (public / "home" / "course", public / "home" / "course" / "below"):
        with a_plain_user(), pytest.raises(CourseError, match="Permission denied; nothing was changed"):
            start(course, public / "carried")
    assert not list((public / "home" / "course").iterdir())


def test_what_was_moved_in_goes_back_where_one_file_cannot(public: Path) -> None:
    """The last folder is closed, so the others are full already."""
    course = public / "home" / "course"
    with a_plain_user():
        start(course, public / "carried", "1.0.0")
    before = tree(course)
    upgraded(public / "carried")
    write(public / "carried", "solutions/ex02.py", "# new\n" + region("return 1"))
    (course / "solutions").chmod(0o555)
    if os.geteuid() == 0:
        os.chown(course / "solutions", 0, 0)
    with a_plain_user(), pytest.raises(CourseError, match="Permission denied; nothing was changed"):
        start(course, public / "carried", "1.1.0")
    assert tree(course) == before


def test_the_command_says_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["start", str(tmp_path / "course")]) == 0
    assert capsys.readouterr().out.count("\n") == 2
    write(tmp_path, "thesis.tex", "")
    assert main(["start", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# ----- beside a notebook that came alone -----


def test_a_lone_notebook_gets_what_it_needs_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "01_the_elevator_that_waits.ipynb", notebook("x = 1"))
    write(tmp_path, "notes.txt", "mine")
    line = beside_notebook(tmp_path)
    assert line.endswith(f"8 exercises, 8 worked answers and {NUM_RESULTS} recorded results.")
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {
        *("01_the_elevator_that_waits.ipynb", "notes.txt", "exercises", "rides", "solutions", "benchmarks"),
    }
    monkeypatch.chdir(tmp_path)
    assert layout.home() == tmp_path
    assert layout.find_folder("exercises") == tmp_path / "exercises"
    write(tmp_path, "exercises/ex01.py", "mine")
    beside_notebook(tmp_path)
    assert (tmp_path / "exercises" / "ex01.py").read_text() == "mine"


def test_another_courses_exercises_are_not_mixed_with(tmp_path: Path) -> None:
    (tmp_path / "exercises").mkdir()
    write(tmp_path, "exercises/sheet1.py", "precious")
    with pytest.raises(CourseError, match=r"\(exercises\): move this notebook into a new folder"):
        beside_notebook(tmp_path)
    assert tree(tmp_path) == {"exercises/sheet1.py": b"precious"}
