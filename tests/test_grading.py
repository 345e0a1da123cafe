"""Grading a class: every submission gets its own grade, nothing is lost, and what cannot be used is said."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import needs
import pytest
from attacks import ATTACKS
from conftest import KERNEL_TIER
from messy_class import MESSES, add_messes
from synthetic_class import (
    KERNEL,
    SOLUTIONS,
    TASKS,
    Due,
    empty,
    make_class,
    missing_file,
    mutant,
    renamed_function,
    solution,
    stub,
    syntax_error,
    zipped,
)
from test_checks_kernel import FAR_AWAY, HANGS, TAKES_ALL, slow_mutant
from test_grading_layouts import CANVAS_ROSTER

from lessonlib import cli
from lessonlib.checks.mutants import read_all
from lessonlib.checks.sandbox.cleaning import is_clean
from lessonlib.errors import CourseError
from lessonlib.grading import checking, cluster, job, progress, records, tables
from lessonlib.grading import run as grading
from lessonlib.grading.points import points
from lessonlib.grading.settings import Results

ROOT = Path(__file__).parents[1]
IN_PYTHON = tuple(task for task, exercise in TASKS.items() if exercise != KERNEL)
TABLES = (
    *("grades_nbgrader.csv", "grades_canvas.csv", "grades_tasks.csv", "mistakes.csv", "obstacles.csv"),
    *("left_out.csv", "similar.csv"),
)
WORKER_SECONDS = 30
KILLED_SECONDS = 900  # until so much is done that a run can be killed in the middle


@pytest.fixture(scope="module")
def class_of_20(tmp_path_factory) -> tuple[Path, dict[str, Due]]:
    folder = tmp_path_factory.mktemp("class") / "submissions"
    return folder, make_class(folder, size=22, attacks=2, mutants=3)


@pytest.fixture(scope="module")
def graded(class_of_20, tmp_path_factory) -> tuple[Path, grading.Grades]:
    """The class graded without the kernel, on two processes, uninterrupted."""
    out = tmp_path_factory.mktemp("graded") / "out"
    settings = grading.Settings(IN_PYTHON, seed=3)
    return out, grading.grade(class_of_20[0], out, settings, workers=2, log=lambda line: None)


def assert_due(found: list, due: dict[str, Due], without: frozenset[str] = frozenset()) -> None:
    """Each has the grade that is due; `without` are tasks that nobody was asked for."""
    assert [record["student"] for record in found] == sorted(due)
    for record in found:
        expected = due[record["student"]]
        lost = len(without - expected.failed)
        assert expected.allows(record["score"] + lost), (record["student"], record["score"])
        assert expected.problem in record["problem"], record["student"]
        sentences = [*record["notes"], *(result["sentence"] for result in record["results"])]
        assert expected.note in " ".join(sentences), record["student"]
        statuses = {result["id"]: result["status"] for result in record["results"]}
        assert all(statuses[task] != "passed" for task in expected.failed - without), record["student"]


def column(path: Path, name: str) -> dict[str, str]:
    """Student → what stands in that column of a table."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row.get("student_id") or row["SIS Login ID"]: row[name] for row in csv.DictReader(file)}


def lesson(*words: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "lessonlib.cli", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)


# ----- a class -----


def test_everyone_gets_the_grade_that_is_due(graded, class_of_20) -> None:
    _, grades = graded
    assert len(grades.records) >= 20
    assert_due(list(grades.records), class_of_20[1], without=frozenset({"ex04.5"}))
    assert not grades.complete
    assert grades.summary.startswith(
        f"{len(grades.records)} graded, 3 of them could not be read\n"
        "not handed in: ex04.py by 1, ex05.py by 1, ex06.py by 1, ex07.py by 1\nsandbox: "
    )


def test_each_student_has_three_files_that_say_the_same(graded) -> None:
    out, grades = graded
    for record in grades.records:
        place = out / records.STUDENTS / record["student"]
        assert json.loads(place.with_name(f"{place.name}.json").read_text()) == record
        suite = ElementTree.fromstring(place.with_name(f"{place.name}.xml").read_text())
        assert int(suite.get("tests", 0)) == len(record["results"]) == len(IN_PYTHON)
        passed = sum(len(case) == 0 for case in suite)
        assert passed == record["score"]
        page = place.with_name(f"{place.name}.html").read_text()
        assert f"{passed} of {len(IN_PYTHON)} points" in page
        assert "<script" not in page


def test_tables_have_the_columns_that_platforms_read(graded) -> None:
    out, grades = graded
    scores = {record["student"]: tables.amount(record["score"]) for record in grades.records}
    assert column(out / "grades_nbgrader.csv", "score") == scores
    assert (out / "grades_nbgrader.csv").read_text().splitlines()[0] == (
        "assignment,duedate,timestamp,student_id,last_name,first_name,email,"
        "raw_score,late_submission_penalty,score,max_score"
    )
    first, possible, *_ = (out / "grades_canvas.csv").read_text().splitlines()
    assert first == "Student,ID,SIS User ID,SIS Login ID,Section,continuous-batching"
    assert possible == f"    Points Possible,,,,,{len(IN_PYTHON)}"
    canvas = column(out / "grades_canvas.csv", "continuous-batching")
    assert {student: canvas[student] for student in scores} == scores


def test_the_commonest_mistakes_are_counted(graded) -> None:
    out, grades = graded
    with (out / "mistakes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    unwritten = [row["told"] == "not written yet" for row in rows]
    assert unwritten == sorted(unwritten)
    counts = [int(row["students"]) for row in rows]
    wrong = counts[: unwritten.index(True)]
    assert wrong == sorted(wrong, reverse=True)
    assert sum(counts) == sum(
        result["status"] in ("failed", "not written")
        for record in grades.records
        for result in record["results"]
    )
    page = (out / "index.html").read_text()
    assert all(f"students/{record['student']}.html" in page for record in grades.records)
    assert (out / "histogram.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_no_answer_is_no_mistake_and_is_named_once_a_student(graded) -> None:
    """Files that are not there or cannot be loaded, and submissions of which nothing can be read."""
    out, _ = graded
    mistakes = (out / "mistakes.csv").read_text()
    assert not any(words in mistakes for words in ("could not", "the file", "the submission"))
    with (out / "obstacles.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["student"], row["part"], row["told"], row["sentence"]) for row in csv.DictReader(file)]
    said = {(student, part): (told, sentence) for student, part, told, sentence in rows}
    assert len(said) == len(rows)
    assert said["syntax_error", "ex03.py"] == (
        "the file can be loaded",
        "ex03.py cannot be loaded: SyntaxError: '(' was never closed, at line 1 of ex03.py, `def allocate(free:`.",
    )
    assert said["missing_file", "ex05.py"][0] == "the file is there"
    assert said["renamed_function", "ex01.3"][0] == "the file has the function, under its name"
    assert said["empty", "the submission"][0] == "the submission can be read"
    assert len([student for student, *_ in rows if student == "empty"]) == 1
    suite = ElementTree.parse(out / records.STUDENTS / "syntax_error.xml")
    errors = [case.find("error") for case in suite.iter("testcase") if case.get("classname") == "ex03.1"]
    assert [error.get("message") for error in errors] == [said["syntax_error", "ex03.py"][1]]
    page = (out / "index.html").read_text()
    row = page[page.index('students/syntax_error.html">') :].partition("</tr>")[0]
    assert "ex03.py cannot be loaded: SyntaxError" in row
    missing = page[page.index('students/missing_file.html">') :].partition("</tr>")[0]
    assert "<td>Not handed in: ex05.py.</td>" in missing
    assert '<td>the submission</td><td>the submission can be read</td><td class="number">3</td>' in page


def test_the_histogram_says_what_it_shows() -> None:
    picture = tables.histogram([{"score": score, "max_score": 4} for score in (0, 3, 4, 4)])
    (axes,) = picture.axes
    assert picture.get_suptitle() == picture.alt == "Half of the class has 88% of the points or more"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("share of the points (%)", "students")
    assert [round(bar.get_height()) for bar in axes.patches] == [1, 0, 0, 0, 0, 0, 0, 1, 0, 2]


def test_whoever_grades_is_told_as_results_come(tmp_path: Path, monkeypatch) -> None:
    """Who cannot be checked and why; how many are done, now and then. The run's tasks are written out."""
    folder = tmp_path / "submissions"
    folder.mkdir()
    syntax_error(folder / "ada")
    missing_file(folder / "bob")
    solution(folder / "eve")
    told: list[str] = []
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    settings = grading.Settings(("ex03.1", "ex05"), seed=1)
    grades = grading.grade(folder, tmp_path / "out", settings, workers=1, log=told.append)
    assert [line for line in told if line.endswith(" done")] == [f"{many} of 3 done" for many in (1, 2, 3)]
    assert [line for line in told if line.startswith(("ada", "bob", "eve"))] == [
        "ada: ex03.py cannot be loaded: SyntaxError: '(' was never closed, at line 1 of ex03.py, "
        "`def allocate(free:`."
    ]
    assert grades.summary.splitlines()[:2] == ["3 graded", "not handed in: ex05.py by 1"]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["tasks"] == [
        "ex03.1",
        *(task for task, exercise in TASKS.items() if exercise == "ex05"),
    ]


def test_a_name_that_the_terminal_cannot_show_ends_nothing(tmp_path: Path) -> None:
    """Nor does one that is as long as a file system takes, or that is not UTF-8."""
    folder = tmp_path / "submissions"
    folder.mkdir()
    for name in ("Zoë", "学" * 84, "अनुष्का (2)"):
        (folder / name).mkdir()
        syntax_error_in(folder / name)
    os.mkdir(os.fsencode(folder) + b"/caf\xe9")
    syntax_error_in(folder / os.fsdecode(b"caf\xe9"))
    words = ("grade", folder, "--out", tmp_path / "out", "--workers", "1", "--exercises", "ex01.1")
    done = lesson(*words, env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"})
    assert done.returncode == 0, done.stderr
    assert r"Zo\xeb: ex01.py cannot be loaded" in done.stdout
    assert "caf%E9: ex01.py cannot be loaded" in done.stdout
    assert len(list((tmp_path / "out" / records.STUDENTS).glob("*.html"))) == 4
    assert set(column(tmp_path / "out" / "grades_nbgrader.csv", "score")) == {
        *("Zoë", "学" * 84, "अनुष्का (2)", "caf%E9")
    }
    links = re.findall('href="([^"]*)"', (tmp_path / "out" / "index.html").read_text(encoding="utf-8"))
    assert len(links) == 4
    assert all((tmp_path / "out" / unquote(link)).is_file() for link in links)


def syntax_error_in(folder: Path) -> None:
    (folder / "ex01.py").write_text("def static_utilization(:\n")


def test_a_record_that_cannot_be_made_is_one_students_alone(tmp_path: Path, monkeypatch) -> None:
    """Whatever came back, the others are graded."""
    folder = tmp_path / "submissions"
    folder.mkdir()
    for student in ("ada", "bob", "eve"):
        stub(folder / student)
    make = checking.make_record

    def makes(submission, answers, *rest):
        if submission.student == "bob" and not submission.problem:
            raise ValueError("an odd answer")
        return make(submission, answers, *rest)

    monkeypatch.setattr(checking, "make_record", makes)
    lines: list[str] = []
    settings = grading.Settings(("ex01.1",))
    grades = grading.grade(folder, tmp_path / "out", settings, workers=1, log=lines.append)
    assert [record["student"] for record in grades.records] == ["ada", "bob", "eve"]
    sentence = "The checker failed on what came back: ValueError: an odd answer. Tell whoever runs it."
    assert [record["problem"] for record in grades.records] == ["", sentence, ""]
    assert f"bob: {sentence}" in lines
    assert not grades.complete


def test_nothing_that_a_student_wrote_gives_orders_on_any_way_out(tmp_path: Path) -> None:
    """Escape and bidi characters in names of files, folders, classes and functions, in texts and reprs."""
    bad = "\x1b]0;owned\x07\u202e\u2066\x9b31m\u200b"
    folder = tmp_path / "submissions"
    folder.mkdir()
    source = (
        f"Odd = type({bad!r}, (), {{'__repr__': lambda self: {bad!r}}})\n"
        f"def static_utilization(lengths, slots):\n    print({bad!r})\n    return Odd()\n"
        f"def expected_static_utilization(low, high, slots):\n    raise type({bad!r}, (ValueError,), {{}})({bad!r})\n"
        f"globals()[{bad!r}] = lambda: 1\n"
    )
    with zipfile.ZipFile(folder / "ada.zip", "w") as archive:
        archive.writestr("ex01.py", source)
        archive.writestr(f"{bad}/ex02 (1).py", f"raise ValueError({bad!r})\n# {bad}")
        archive.writestr(f"../{bad}.py", "x = 1\n")
        archive.writestr(f"{bad}.tar", "no tar")
        archive.writestr(f"03{bad}.ipynb", "{")
    for name in (f"b{bad}ob", "eve\nada: 3 of 3 points"):
        (folder / name).mkdir()
        (folder / name / "ex01.py").write_text("def x(:\n")
    (folder / f"{bad}.txt").write_text("-")
    words = ("--out", tmp_path / "out", "--workers", "1", "--exercises", "ex01", "ex02", "ex03.1")
    done = lesson("grade", folder, *words)
    assert done.returncode == 1, done.stderr
    ways = {"stdout": done.stdout, "stderr": done.stderr}
    ways |= {str(path): path.read_text(encoding="utf-8") for path in (tmp_path / "out").rglob("*.*ml")}
    ways |= {str(path): path.read_text(encoding="utf-8") for path in (tmp_path / "out").glob("*.csv")}
    for path in (tmp_path / "out" / records.STUDENTS).glob("*.json"):
        ways[str(path)] = "\n".join(texts_of(json.loads(path.read_text(encoding="utf-8"))))
    assert len(ways) > 12
    for way, text in ways.items():
        orders = sorted({each for each in text if not is_clean(each) and each not in "\n\t"})
        assert not orders, (way, orders)
    assert "owned" in ways["stdout"]
    assert not [line for line in done.stdout.splitlines() if line.startswith("ada: 3 of 3")]


def texts_of(data) -> Iterator[str]:
    """Every text in what came out of JSON."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        for name, value in data.items():
            yield name
            yield from texts_of(value)
    elif isinstance(data, list):
        for value in data:
            yield from texts_of(value)


def test_inputs_are_each_students_own_and_come_again(tmp_path: Path) -> None:
    """The seed stands in the JSON alone: a student's page, or another's, holds no table of answers."""
    folder = tmp_path / "submissions"
    for student in ("ada", "bob"):
        (folder / student).mkdir(parents=True)
        late = "def drain(lengths, slots, right=drain):\n    return right(lengths[:6], slots)\n"
        text = (SOLUTIONS / "ex01.py").read_text(encoding="utf-8") + late
        (folder / student / "ex01.py").write_text(text, encoding="utf-8")
    options = {"workers": 1, "log": lambda line: None}
    first = grading.grade(folder, tmp_path / "out", grading.Settings(("ex01.3",)), **options)
    ada, bob = (record["results"][0] for record in first.records)
    assert ada["status"] == bob["status"] == "failed"
    assert ada["seed"] != bob["seed"]
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert ada["seed"] == job.student_seed(run["seed"], "ada") != run["seed"]
    assert f"seed       {ada['seed']} draws" in ada["message"]
    for ending in ("html", "xml"):
        page = (tmp_path / "out" / records.STUDENTS / f"ada.{ending}").read_text()
        assert "drain(lengths=" in page
        assert str(ada["seed"]) not in page
        assert str(run["seed"]) not in page
        assert "seed" not in page
    (tmp_path / "out" / records.STUDENTS / "ada.json").unlink()
    again = grading.grade(
        folder, tmp_path / "out", resume=True, settings=grading.Settings(("ex01.3",)), **options
    )
    assert again.records[0]["results"][0]["seed"] == ada["seed"]
    other = grading.grade(folder, tmp_path / "other", grading.Settings(("ex01.3",)), **options)
    assert other.records[0]["results"][0]["seed"] != ada["seed"]


def test_lines_come_seconds_apart_and_the_last_one_comes() -> None:
    told: list[str] = []
    with progress.Progress(200, 0, told.append) as bar:
        for _ in range(200):
            bar.one_more()
    assert told == ["200 of 200 done"]


def test_resume_does_only_what_is_missing(graded, class_of_20, tmp_path: Path) -> None:
    """Half of the records and a changed submission: these are done again, the others are left as they are."""
    folder, _ = class_of_20
    out, grades = graded
    before = {path.name: path.stat().st_mtime_ns for path in (out / records.STUDENTS).glob("*.json")}
    missing = ["solution_21", "stub"]
    for student in missing:
        (out / records.STUDENTS / f"{student}.json").unlink()
    again = grading.grade(
        folder, out, grading.Settings(IN_PYTHON), workers=1, resume=True, log=lambda line: None
    )
    assert again.records == grades.records
    after = {path.name: path.stat().st_mtime_ns for path in (out / records.STUDENTS).glob("*.json")}
    changed = {name.removesuffix(".json") for name in after if after[name] != before.get(name)}
    assert changed == set(missing)


def test_a_run_that_is_killed_goes_on_to_the_same_tables(tmp_path: Path) -> None:
    """A small class, as it is graded three times over; one of 200 is killed by `make prove`."""
    folder, tasks = tmp_path / "submissions", ("ex01", "ex03.1")
    folder.mkdir()
    for make in (empty, missing_file, renamed_function, stub, syntax_error, zipped):
        make(folder / make.__name__)
    for student in ("ada", "bob"):
        solution(folder / student)
    settings = grading.Settings(tasks, seed=3)
    grading.grade(folder, tmp_path / "whole", settings, workers=2, log=lambda line: None)
    killed_and_resumed(folder, tmp_path / "out", 3, "--seed", "3", "--exercises", *tasks)
    same_tables(tmp_path / "out", tmp_path / "whole")


def killed_and_resumed(folder: Path, out: Path, after: int, *options: str) -> None:
    """Grade, kill -9 once so many records are there, see that nothing lives on, and grade the rest."""
    words = ["grade", str(folder), "--out", str(out), "--workers", "2", *options]
    with scratch_folder() as scratch:  # what is killed cannot tidy up
        environment = {**os.environ, "TMPDIR": str(scratch)}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command = [sys.executable, "-m", "lessonlib.cli", *words]
        with subprocess.Popen(command, cwd=ROOT, env=environment, **quiet) as process:
            try:
                killed(process, folder, out, after)
            finally:
                process.kill()
    resumed = lesson(*words, "--resume")
    assert resumed.returncode == 1, resumed.stderr  # some of them cannot be read


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for scratch folders that every user may walk through."""
    folder = Path("/tmp") / f"graded-{uuid.uuid4().hex}"
    folder.mkdir(mode=0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def killed(process: subprocess.Popen, folder: Path, out: Path, after: int) -> None:
    """Kill it once so many records are there, and see that nothing of it lives on."""
    deadline = time.monotonic() + KILLED_SECONDS
    while len(list((out / records.STUDENTS).glob("*.json"))) < after:
        assert process.poll() is None, "it was done before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    family = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while any(map(alive, family)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in family if alive(pid)]
    assert len(list((out / records.STUDENTS).glob("*.json"))) < len(list(folder.iterdir()))


def descendants(pid: int) -> set[tuple[int, str]]:
    """(pid, start time) of every process below this one."""
    below: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        stat = stat_of(int(process.name))
        if stat:
            below.setdefault(int(stat[1]), []).append(int(process.name))
    found, left = set(), [pid]
    while left:
        for child in below.get(left.pop(), []):
            found.add((child, (stat_of(child) or ["", "", ""])[2]))
            left.append(child)
    return found


def stat_of(pid: int) -> list[str]:
    """[state, parent, start time], or nothing."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [words[0], words[1], words[19]]


def alive(process: tuple[int, str]) -> bool:
    stat = stat_of(process[0])
    return bool(stat) and stat[0] != "Z" and stat[2] == process[1]


# ----- Dask, elsewhere -----


@contextmanager
def dask_cluster(folder: Path, *workers: tuple[str, ...]) -> Iterator[str]:
    """The address of a scheduler with these workers, each a process of its own with these options."""
    file = folder / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    common = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment, "cwd": folder}
    shared = ["--no-dashboard", "--scheduler-file", str(file)]
    scheduler = ["scheduler", "--host", "127.0.0.1", "--port", "0", *shared]
    worker = ["worker", "--nthreads", "1", "--memory-limit", "0", "--local-directory", str(folder), *shared]
    processes = [subprocess.Popen([*common, *scheduler], **quiet)]
    try:
        deadline = time.monotonic() + WORKER_SECONDS
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        processes += [subprocess.Popen([*common, *worker, *options], **quiet) for options in workers]
        yield json.loads(file.read_text())["address"]
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(timeout=20)


def wait_for_workers(address: str, many: int) -> None:
    from distributed import Client

    with Client(address) as client:
        client.wait_for_workers(many, timeout=WORKER_SECONDS)


@pytest.mark.prove
def test_a_cluster_grades_as_this_machine_does(tmp_path: Path) -> None:
    """And a worker's GPU is asked for by the kernel's jobs alone, one at a time."""
    folder = tmp_path / "submissions"
    folder.mkdir()
    solution(folder / "ada")
    stub(folder / "bob")
    settings = grading.Settings(("ex02", "ex04.5"), seed=1)
    with dask_cluster(tmp_path, ("--resources", "GPU=1"), ()) as address:
        wait_for_workers(address, 2)
        there = grading.grade(folder, tmp_path / "there", settings, scheduler=address, log=lambda line: None)
    here = grading.grade(folder, tmp_path / "here", settings, workers=1, log=lambda line: None)
    assert there.records == here.records
    assert [(record["student"], record["score"]) for record in here.records] == [("ada", 5.0), ("bob", 0.0)]
    assert here.complete


def test_a_scheduler_without_workers_or_without_an_answer_is_said(
    tmp_path: Path, class_of_20, monkeypatch, capsys
) -> None:
    with (
        dask_cluster(tmp_path) as address,
        pytest.raises(CourseError, match="has no workers: start `dask worker"),
    ):
        grading.grade(class_of_20[0], tmp_path / "out", scheduler=address)
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    nowhere = [
        "grade",
        str(class_of_20[0]),
        "--out",
        str(tmp_path / "other"),
        "--scheduler",
        "tcp://127.0.0.1:9",
    ]
    capsys.readouterr()
    assert cli.main(nowhere) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "no scheduler answers at tcp://127.0.0.1:9" in said[0]


# ----- bad input -----


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("nowhere", "--out", "out"),
            "no folder nowhere: give the one that holds the submissions, or their zip",
        ),
        (("empty", "--out", "out"), "no submission in empty (notes.txt: neither a folder nor a zip)"),
        (("class", "--out", "out", "--exercises", "ex77"), "unknown exercise 'ex77'"),
        (("class", "--out", "file/out"), "cannot write to file/out: Not a directory; choose another --out"),
        (("class", "--out", "done"), "done holds results: go on with --resume, or choose another --out"),
        (("class", "--out", "done", "--resume", "--seed", "9"), "done was begun with seed 1, not 9"),
        (
            ("class", "--out", "done", "--resume", "--exercises", "ex02"),
            'done was begun with tasks ["ex01.1", "ex01.2"',
        ),
        (("class", "--out", "odd", "--resume"), "cannot read odd/run.json"),
        (("class", "--out", "out", "--workers", "0"), "--workers 0: give 1 or more"),
        (("class", "--out", "out", "--weights", "file"), "cannot read the weights file"),
        (("class", "--out", "out", "--weights", "odd.toml"), "odd.toml has no task's id 'ex01'"),
        (("class", "--out", "out", "--weights", "low.toml"), "low.toml gives ex01.1 -1 points"),
        (("class", "--out", "out", "--roster", "file"), "file is neither a Canvas gradebook nor a Moodle"),
        (
            ("class", "--out", "out", "--from", "blackboard"),
            "unknown layout 'blackboard': there is folders, canvas",
        ),
        (
            ("class", "--out", "out", "--from", "canvas"),
            "no submission in class (ada: not a name that Canvas gives",
        ),
        (
            ("class", "--out", "out", "--from", "moodle"),
            "no submission in class (ada: not a name that Moodle gives",
        ),
        (
            ("file", "--out", "out"),
            "cannot read file (BadZipFile: File is not a zip file): give the folder of",
        ),
        (("class", "--out", "out", "--regrade", "adda"), "no student 'adda' to grade again: there is ada"),
        (("class", "--out", "out", "--overrides", "file"), "cannot read the overrides file"),
        (
            ("class", "--out", "out", "--overrides", "odd-overrides.toml"),
            "gives ada a 'ex09.1': there is score, reason",
        ),
        (("class", "--out", "out", "--overrides", "low-overrides.toml"), "gives ada -1 points for score"),
        (
            ("class", "--out", "out", "--overrides", "whose-overrides.toml"),
            "has points for 'adda', who handed in nothing: there is ada",
        ),
    ],
)
def test_bad_input_is_one_line_and_status_2(words, told, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "class/ada", "done"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "class/ada/ex01.py").write_text("x = 1\n")
    (tmp_path / "empty/notes.txt").write_text("-")
    (tmp_path / "file").write_text("not toml")
    (tmp_path / "odd.toml").write_text('"ex01" = 2\n')
    (tmp_path / "low.toml").write_text('"ex01.1" = -1\n')
    with Results(tmp_path / "done", grading.Settings(seed=1), False) as results:
        results.make()
    (tmp_path / "odd-overrides.toml").write_text('[ada]\n"ex09.1" = 1\n')
    (tmp_path / "low-overrides.toml").write_text("[ada]\nscore = -1\n")
    (tmp_path / "whose-overrides.toml").write_text("[adda]\nscore = 1\n")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/run.json").write_text("[]")
    assert cli.main(["grade", *words]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert not (tmp_path / "out").exists()
    assert len(said.splitlines()) == 1


# ----- weights, a roster, the GPU's part -----


def test_weights_and_a_roster(tmp_path: Path) -> None:
    folder = tmp_path / "submissions"
    folder.mkdir()
    mutant(folder / "ada", read_all(SOLUTIONS / "mutants")["ex01.3"]["ceiling"])
    (tmp_path / "weights.toml").write_text('"ex01.1" = 2.5\n"ex01.3" = 4\n')
    (tmp_path / "roster.csv").write_text(
        "Student,ID,SIS User ID,SIS Login ID,Section,Quiz\n    Points Possible,,,,,5\n"
        '"Lovelace, Ada",77,s77,ada,Monday,3\n'
    )
    options = (
        "--weights",
        tmp_path / "weights.toml",
        "--roster",
        tmp_path / "roster.csv",
        "--assignment",
        "One",
    )
    done = lesson(
        "grade", folder, "--out", tmp_path / "out", "--workers", "1", "--exercises", "ex01", *options
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "grades_canvas.csv").read_text().splitlines()
    assert lines == [
        "Student,ID,SIS User ID,SIS Login ID,Section,One",
        "    Points Possible,,,,,7.5",
        '"Lovelace, Ada",77,s77,ada,Monday,3.5',
    ]


def test_a_class_from_canvas_from_download_to_upload(tmp_path: Path) -> None:
    """The zip as it was downloaded, the gradebook, a point by hand, one student again."""
    right = (SOLUTIONS / "ex01.py").read_bytes()
    with zipfile.ZipFile(tmp_path / "submissions.zip", "w") as archive:
        archive.writestr("lovelaceada_77_1_ex01-1.py", right)
        archive.writestr("babbagecharles_LATE_78_2_ex01.py", right + b"\n\ndef drain(*any): return 1, 1\n")
        archive.writestr("noone_80_3_ex01.py", right)
        archive.writestr("readme.txt", "-")
    (tmp_path / "gradebook.csv").write_text(CANVAS_ROSTER, encoding="utf-8")
    (tmp_path / "hand.toml").write_text('[babbagecharles_78]\n"ex01.3" = 0.5\nreason = "Nearly."\n')
    out = tmp_path / "out"
    words = ["grade", tmp_path / "submissions.zip", "--from", "canvas", "--out", out, "--workers", "1"]
    words += ["--exercises", "ex01", "--roster", tmp_path / "gradebook.csv", "--assignment"]
    misspelt = lesson(*words, "won").stdout
    assert "the gradebook has no 'won': grades_canvas.csv makes a new column of it; " in misspelt
    assert "--assignment fills one of its own: one (991)" in misspelt
    assert "lovelaceada_77: There is no ex01.py: ex01-1.py was taken." in misspelt
    words += ["one", "--resume"]
    done = lesson(*words, "--overrides", tmp_path / "hand.toml")
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert "left out: readme.txt: not a name that Canvas gives: student_ID_submission_file" in lines
    assert "left out: noone_80: no student of the roster" in lines
    assert lines[-5:-1] == [
        "3 graded",
        "belongs to no student: readme.txt",
        "not in the roster: noone_80",
        "no submission: Hopper, Grace (ID 79)",
    ]
    assert (out / "grades_canvas.csv").read_text().splitlines() == [
        "Student,ID,SIS User ID,SIS Login ID,Section,one (991)",
        "    Points Possible,,,,,10",
        '"Babbage, Charles",78,s78,charles,Monday,8.33',
        '"Lovelace, Ada",77,s77,ada,Monday,10',
    ]
    with (out / "left_out.csv").open(encoding="utf-8", newline="") as file:
        kinds = [row["kind"] for row in csv.DictReader(file)]
    assert kinds == ["belongs to no student", "not in the roster", "no submission"]
    page = (out / records.STUDENTS / "babbagecharles_78.html").read_text()
    assert "Points given by hand: 0.5 for ex01.3. Nearly." in page
    assert "2.5 of 3 points" in page

    before = {path.name: path.stat().st_mtime_ns for path in (out / records.STUDENTS).glob("*.json")}
    again = lesson(*words, "--regrade", "lovelaceada_77")
    assert again.returncode == 1, again.stderr
    after = {path.name: path.stat().st_mtime_ns for path in (out / records.STUDENTS).glob("*.json")}
    assert [name for name in after if after[name] != before[name]] == ["lovelaceada_77.json"]
    assert '"Babbage, Charles",78,s78,charles,Monday,8.33' in (out / "grades_canvas.csv").read_text()


def test_two_runs_into_one_folder_lock_each_other_out(tmp_path: Path) -> None:
    folder = tmp_path / "submissions"
    folder.mkdir()
    stub(folder / "ada")
    settings = grading.Settings(("ex01.1",))
    with Results(tmp_path / "out", settings, False) as results:
        results.make()
        with pytest.raises(
            CourseError, match=r"another run is grading into .*out: wait for it, or choose another"
        ):
            grading.grade(folder, tmp_path / "out", settings, resume=True)
    assert grading.grade(
        folder, tmp_path / "out", settings, resume=True, workers=1, log=lambda line: None
    ).complete


def test_a_run_that_began_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with Results(tmp_path / "out", grading.Settings(seed=1), False) as late:
        with Results(tmp_path / "out", grading.Settings(seed=2), False) as early:
            early.make()
        with pytest.raises(CourseError, match="another run has begun in"):
            late.make()


def test_workers_that_are_gone_are_said_and_not_waited_for_any_longer(tmp_path: Path, monkeypatch) -> None:
    """They are killed while they check the first of two who hang."""
    folder = tmp_path / "submissions"
    for student in ("ada", "bob"):
        (folder / student).mkdir(parents=True)
        hangs = "def static_utilization(lengths, slots):\n    while True: pass\n"
        (folder / student / "ex01.py").write_text(hangs)
    monkeypatch.setattr(cluster, "NO_WORKER_SECONDS", 2)
    lines: list[str] = []
    with dask_cluster(tmp_path, ("--no-nanny",)) as address:
        wait_for_workers(address, 1)

        def log(line: str) -> None:
            lines.append(line)

        killer = threading.Timer(1.0, kill_workers, [address])
        killer.start()
        started = time.monotonic()
        grades = grading.grade(
            folder, tmp_path / "out", grading.Settings(("ex01.1",)), scheduler=address, log=log
        )
        assert time.monotonic() - started < 60
    assert "no worker is left: waiting 2 seconds for one" in lines
    assert [(each.name, each.kind) for each in grades.left_out] == [
        ("ada", "not graded"),
        ("bob", "not graded"),
    ]
    assert "bob: not graded, since no worker is left: run again with --resume" in lines
    assert not grades.complete


def kill_workers(address: str) -> None:
    from distributed import Client

    with Client(address) as client:
        for pid in client.run(os.getpid).values():
            os.kill(pid, signal.SIGKILL)


def test_what_is_not_checked_here_counts_on_neither_side() -> None:
    results = [
        {"id": "ex04.5", "status": "passed"},
        {"id": "ex04.5", "status": "not checked here"},
        {"id": "ex04.4", "status": "not checked here"},
        {"id": "ex04.3", "status": "not written"},
    ]
    weights = dict.fromkeys(TASKS, 1.0)
    assert points(results, weights) == (1.0, 2.0)
    results[1]["status"] = "failed"  # its speed
    assert points(results, weights) == (0.0, 2.0)


# ----- too long for `make test` -----


@pytest.fixture
def submissions_folder() -> Iterator[Path]:
    """Removed afterwards, however deep: Python's own way out is a recursion."""
    with scratch_folder() as folder:
        yield folder / "submissions"
        subprocess.run(["rm", "-rf", str(folder / "submissions")], check=True)


@pytest.mark.prove
def test_thirty_messes_are_named_and_nobody_else_is_touched(submissions_folder: Path, tmp_path: Path) -> None:
    """The innocents' records are those of a class without messes."""
    settings = grading.Settings(("ex01", "ex02"), seed=7)
    options = {"workers": 2, "log": lambda line: None}
    innocents = [solution, syntax_error, missing_file, stub]
    for folder in (submissions_folder, submissions_folder.with_name("alone")):
        folder.mkdir()
        for make in innocents:
            make(folder / make.__name__)
    due = add_messes(submissions_folder)
    assert len(due) >= 30
    together = grading.grade(submissions_folder, tmp_path / "together", settings, **options)
    alone = grading.grade(submissions_folder.with_name("alone"), tmp_path / "alone", settings, **options)
    records_of = {record["student"]: record for record in together.records}
    assert [records_of[record["student"]]["score"] for record in alone.records] == [
        record["score"] for record in alone.records
    ]
    asked = frozenset(task for task, exercise in TASKS.items() if exercise in ("ex01", "ex02"))
    messes = [record for record in together.records if record["student"] in due]
    assert_due(messes, due, without=frozenset(TASKS) - asked)
    assert not together.left_out


@pytest.mark.gpu
@pytest.mark.prove
def test_a_class_of_twenty_on_one_card(tmp_path: Path) -> None:
    """All exercises, with kernels that hang, are lost, take all memory or are slow between those that are right."""
    if KERNEL_TIER != "gpu":
        needs.GPU.skip()
    folder = tmp_path / "submissions"
    folder.mkdir()
    faults = {"hangs": HANGS, "far_away": FAR_AWAY, "takes_all": TAKES_ALL}
    faults["slow"] = slow_mutant()
    expected = {}
    for number in range(20):
        name, fault = list(faults.items())[number % 8] if number % 8 < len(faults) else ("right", "")
        student = f"{name}_{number}"
        solution(folder / student)
        kernel = folder / student / f"{KERNEL}.py"
        kernel.write_text(kernel.read_text(encoding="utf-8") + "\n\n" + fault, encoding="utf-8")
        expected[student] = float(len(TASKS) - bool(fault))
    started = time.monotonic()
    grades = grading.grade(folder, tmp_path / "out", grading.Settings(seed=3), log=print)
    print(f"{len(expected)} on one card in {time.monotonic() - started:.0f} s\n{grades.summary}", flush=True)
    for record in grades.records:
        print(record["student"], [each["message"] for each in record["results"] if each["id"] == "ex04.5"])
    assert {record["student"]: record["score"] for record in grades.records} == expected
    tiers = {
        each["tier"] for record in grades.records for each in record["results"] if each["id"] == "ex04.5"
    }
    assert tiers == {"gpu"}
    assert grades.complete


@pytest.mark.prove
def test_a_class_of_200(submissions_folder: Path, tmp_path: Path) -> None:
    """With thirty messes among them, in under ten minutes on two cores, each with the grade that is due; killed and
    resumed, and on a cluster of two workers, the tables are the same."""
    folder = submissions_folder
    due = make_class(folder, size=200 - len(MESSES), attacks=len(ATTACKS), mutants=100)
    due |= add_messes(folder)
    started = time.monotonic()
    grades = grading.grade(
        folder, tmp_path / "whole", grading.Settings(seed=5), workers=2, log=lambda line: None
    )
    seconds = time.monotonic() - started
    print(f"a class of {len(due)} in {seconds:.1f} s on {os.cpu_count()} cores\n{grades.summary}", flush=True)
    assert_due(list(grades.records), due)

    started = time.monotonic()
    killed_and_resumed(folder, tmp_path / "killed", 100, "--seed", "5")
    print(f"killed with 100 done and resumed: {time.monotonic() - started:.1f} s in all", flush=True)
    same_tables(tmp_path / "killed", tmp_path / "whole")

    started = time.monotonic()
    with dask_cluster(tmp_path, (), ()) as address:
        wait_for_workers(address, 2)
        settings = grading.Settings(seed=5)
        grading.grade(folder, tmp_path / "cluster", settings, scheduler=address, log=lambda line: None)
    print(f"over a cluster of two workers: {time.monotonic() - started:.1f} s", flush=True)
    same_tables(tmp_path / "cluster", tmp_path / "whole")
    assert seconds < 600


def same_tables(one: Path, other: Path) -> None:
    """Byte for byte."""
    for name in TABLES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
