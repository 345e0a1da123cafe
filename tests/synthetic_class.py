"""A class that was never taught: solutions, stubs, mutants and attacks, and the grade that each is due."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attacks import ATTACKS, source

from lessonlib.checks import EXERCISES, stubs
from lessonlib.checks.mutants import Mutant, read_all
from lessonlib.checks.sandbox.confine import LIMITS, best_level
from lessonlib.checks.spec import GPU

SOLUTIONS = Path(__file__).parents[1] / "solutions"
MUTANTS = [each for of_task in read_all(SOLUTIONS / "mutants").values() for each in of_task.values()]
KERNEL = "ex04_kernel"
TASKS = {task.id: exercise.id for exercise in EXERCISES.values() for task in exercise.tasks}
BUILT_ON = {task.id: task.built_on for exercise in EXERCISES.values() for task in exercise.tasks}
FIRST = "ex01.1"  # what an attack takes the place of


@dataclass(frozen=True)
class Due:
    """The grade that a submission is due.

    Attributes:
        failed: tasks without a point.
        either: tasks that may pass or not, since they are built on a wrong one.
        problem: a piece of why nothing of it can be graded, or "".
        note: a piece of what is said beside the grade, or "".
    """

    failed: frozenset[str] = frozenset()
    either: frozenset[str] = frozenset()
    problem: str = ""
    note: str = ""

    def allows(self, score: float) -> bool:
        """Whether so many points are among those due, one a task."""
        passed = len(TASKS) - len(self.failed)
        return passed - len(self.either) <= score <= passed


EVERYTHING = frozenset(TASKS)


def solution(folder: Path, *without: str) -> None:
    folder.mkdir()
    for name in EXERCISES:
        if name not in without:
            shutil.copy(SOLUTIONS / f"{name}.py", folder)


def mutant(folder: Path, wrong: Mutant) -> Due:
    """The solution with one of its functions wrong."""
    solution(folder)
    (folder / f"{TASKS[wrong.task]}.py").write_text(wrong.file(SOLUTIONS), encoding="utf-8")
    built_on = {other for other, parts in BUILT_ON.items() if wrong.task in parts}
    return Due(frozenset({wrong.task}), frozenset(built_on))


def attack(folder: Path, name: str) -> Due:
    """The solution, and an attack in the place of its first function."""
    solution(folder)
    file = folder / "ex01.py"
    text = source(ATTACKS[name], str(SOLUTIONS / "ex01.py"), marker=f"left-by-{folder.parent.parent.name}")
    file.write_text(file.read_text(encoding="utf-8") + "\n\n" + text, encoding="utf-8")
    return Due(frozenset({FIRST}))


def tasks_of(*exercises: str) -> frozenset[str]:
    return frozenset(task for task, exercise in TASKS.items() if exercise in exercises)


# ----- odd ones, each with its name -----


def stub(folder: Path) -> Due:
    folder.mkdir()
    stubs.write(SOLUTIONS, folder)
    return Due(EVERYTHING)


def zipped(folder: Path) -> Due:
    solution(folder)
    shutil.make_archive(str(folder), "zip", folder.parent, folder.name)
    shutil.rmtree(folder)
    return Due()


def whole_course(folder: Path) -> Due:
    """The course as it was cloned, with answers in its `exercises/`."""
    folder.mkdir()
    solution(folder / "exercises")
    shutil.copytree(SOLUTIONS, folder / "solutions")
    stub(folder / "handed_out")
    return Due()


def notebook(folder: Path) -> Due:
    """Exercise 01 in a notebook whose outputs are megabytes."""
    solution(folder, "ex01")
    answers = (SOLUTIONS / "ex01.py").read_text(encoding="utf-8")
    flood = {"output_type": "stream", "name": "stdout", "text": ["x" * 1_000_000] * 8}
    cells = [
        {"cell_type": "markdown", "source": ["# Mine"], "metadata": {}},
        {"cell_type": "code", "source": "%matplotlib inline\nimport lessonlib\nprint(1)", "outputs": [flood]},
        {"cell_type": "code", "source": answers.splitlines(keepends=True), "outputs": []},
        {"cell_type": "code", "source": "static_utilization([1, 2], 2)", "outputs": []},
    ]
    text = json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    (folder / "01_the_elevator_that_waits.ipynb").write_text(text, encoding="utf-8")
    return Due(note="ex01.py was taken from")


def not_utf8(folder: Path) -> Due:
    solution(folder)
    (folder / "ex02.py").write_bytes("name = 'Zoë'\n".encode("latin-1"))
    return Due(tasks_of("ex02"))


def syntax_error(folder: Path) -> Due:
    solution(folder)
    (folder / "ex03.py").write_text("def allocate(free:\n", encoding="utf-8")
    return Due(tasks_of("ex03"))


def renamed_function(folder: Path) -> Due:
    solution(folder)
    file = folder / "ex01.py"
    file.write_text(file.read_text(encoding="utf-8").replace("def drain(", "def draining("), encoding="utf-8")
    return Due(frozenset({"ex01.3"}))


def missing_file(folder: Path) -> Due:
    solution(folder, "ex05")
    return Due(tasks_of("ex05"))


def endless_top_level(folder: Path) -> Due:
    solution(folder)
    (folder / "ex05.py").write_text("while True: pass\n", encoding="utf-8")
    return Due(tasks_of("ex05"))


def empty(folder: Path) -> Due:
    folder.mkdir()
    return Due(EVERYTHING, problem="There is none of ex01.py")


def no_zip(folder: Path) -> Due:
    folder.with_suffix(".zip").write_bytes(b"PK\x03\x04 no more")
    return Due(EVERYTHING, problem="is not a zip that can be read")


def link(folder: Path) -> Due:
    solution(folder, "ex01")
    (folder / "ex01.py").symlink_to(SOLUTIONS / "ex01.py")
    return Due(tasks_of("ex01"), note="ex01.py is a link: it was not followed")


def zip_slip(folder: Path) -> Due:
    """A zip whose entries point out of it, at the solutions and at a neighbor."""
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        archive.writestr("ex02.py", (SOLUTIONS / "ex02.py").read_text(encoding="utf-8"))
        archive.writestr("../ex01.py", "x = 1\n")
        archive.writestr("/tmp/ex03.py", "x = 1\n")
        entry = zipfile.ZipInfo("ex05.py")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, str(SOLUTIONS / "ex05.py"))
    return Due(EVERYTHING - tasks_of("ex02"), note="points out of the zip")


def twice(folder: Path) -> Due:
    solution(folder)
    shutil.make_archive(str(folder), "zip", folder)
    return Due(EVERYTHING, problem="is here more than once")


def huge_file(folder: Path) -> Due:
    solution(folder)
    (folder / "ex01.py").write_bytes(b"# " + b"x" * (2 << 20))
    return Due(tasks_of("ex01"), note="more than 1,048,576: it was not read")


def fifo(folder: Path) -> Due:
    solution(folder, "ex01")
    os.mkfifo(folder / "ex01.py")
    return Due(tasks_of("ex01"), note="ex01.py is not a plain file")


ODD: tuple[Callable[[Path], Due], ...] = (
    *(stub, zipped, whole_course, notebook, not_utf8, syntax_error, renamed_function, missing_file),
    *(endless_top_level, empty, no_zip, link, zip_slip, twice, huge_file, fifo),
)


def contained() -> list[str]:
    """The attacks that this machine can be asked to take."""
    alone = best_level().name == LIMITS.name
    return sorted(name for name, attack in ATTACKS.items() if not (attack.outside and alone))


def make_class(folder: Path, size: int, attacks: int, mutants: int, seed: int = 0) -> dict[str, Due]:
    """Student → the grade due. One of each odd submission, attacks and mutants as drawn; the rest is right."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    due: dict[str, Due] = {}
    for make in ODD:
        due[make.__name__] = make(folder / make.__name__)
    for name in rng.sample(contained(), min(attacks, len(contained()))):
        due[f"attack_{name}"] = attack(folder / f"attack_{name}", name)
    here = [each for each in MUTANTS if each.tier != GPU]
    for wrong in rng.sample(here, mutants):
        student = f"mutant_{wrong.task}_{wrong.name}"
        due[student] = mutant(folder / student, wrong)
    while len(due) < size:
        student = f"solution_{len(due)}"
        solution(folder / student)
        due[student] = Due()
    return due
