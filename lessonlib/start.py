"""`lesson start`: lays the course into a folder, and brings what is new into one that has it already.

A file that the student has changed is never touched. A notebook counts as changed where a cell's source is; running
it, which changes its outputs, is no change.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lessonlib import __version__, layout
from lessonlib.errors import CourseError

SCRATCH = ".lesson-"
MOST_NAMED = 5  # files of one kind that a line lists
KINDS = (
    ("notebooks", ".ipynb", "notebooks"),
    (layout.EXERCISES, ".py", "exercises"),
    (layout.SOLUTIONS, ".py", "worked answers"),
    (layout.RESULTS, "", "recorded results"),
)


class Fingerprint(NamedTuple):
    """What a file is known by: of all its bytes, and of what of it is written by people."""

    content: str
    source: str


@dataclass
class Plan:
    """What is to be done in a folder.

    Attributes:
        folder: where.
        before: the version that it holds; "" for none.
        writes: path below the folder -> content.
        new, replaced: paths of the course's files that are written.
        kept: paths of the student's own versions, which stay.
        beside: a path of `kept` -> that of the course's new version, laid beside it.
        gone: files that the course had and no longer has; they stay.
        manifest: path -> fingerprint of what the course last brought.
    """

    folder: Path
    before: str
    writes: dict[str, bytes] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    beside: dict[str, str] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    manifest: dict[str, Fingerprint] = field(default_factory=dict)


def start(
    folder: str | Path | None = None,
    root: Path | None = None,
    version: str = __version__,
    with_solutions: bool = True,
) -> list[str]:
    """Lay the course there, or bring it up to date. Returns what was done and what to open next, in lines.

    Args:
        folder: a new or an empty folder, or one with a course of ours; by default the one around the working
            directory, else a new one that is named after the course.
        root: the clone or the wheel's copy to take it from, by default the one that is in use.
        version: of `root`.
        with_solutions: whether the worked answers are laid there too.

    Raises `CourseError` for a folder that holds something else or cannot be written; it is then as it was.
    """
    with _in_one_line(folder or layout.NAME):
        there = _chosen(folder)
        manifest = _manifest(there)
        if manifest is None and (other := _something_else(there)):
            raise CourseError(f"{there} holds something else ({other}): name a new or an empty folder")
        plan = _plan(there, layout.handed_out(root or layout.source(), with_solutions), manifest)
        _carry_out(plan, version)
    return _report(plan, version)


def beside_notebook(folder: Path) -> str:
    """Lay what a notebook that came alone needs into its own folder. Returns what was done, in one line.

    Raises `CourseError` where that folder holds other things by the same names, or cannot be written.
    """
    files = {
        name.removeprefix("notebooks/"): content
        for name, content in layout.handed_out(layout.source()).items()
        if not name.endswith(".ipynb")
    }
    with _in_one_line(folder):
        manifest = _manifest(folder)
        names = sorted({name.partition("/")[0] for name in files})
        if manifest is None and (taken := [name for name in names if (folder / name).exists()]):
            raise CourseError(
                f"{folder} holds something else ({taken[0]}): move this notebook into a new folder"
            )
        _carry_out(_plan(folder, files, manifest), __version__)
    return f"The course {__version__} is installed. Beside this notebook lie {_counted(files)}."


@contextlib.contextmanager
def _in_one_line(folder: str | Path) -> Iterator[None]:
    """What the system does not allow becomes a `CourseError`."""
    try:
        yield
    except OSError as error:
        raise CourseError(
            f"cannot start the course in {folder}: {error.strerror}; nothing was changed, choose another place"
        ) from error


# ----- which folder -----


def _chosen(folder: str | Path | None) -> Path:
    """Raises `CourseError` for what is no folder, or a clone."""
    there = Path(folder) if folder else layout.around() or Path(layout.NAME)
    there = Path.cwd() if there == Path() else there
    if there.exists() and not there.is_dir():
        raise CourseError(f"{there} is a file: name a new or an empty folder")
    if layout.is_clone(there):
        raise CourseError(
            f"{there} is a clone of the course and has all of it: `git pull` brings what is new"
        )
    return there


def _something_else(folder: Path) -> str:
    """The name of something that lies there already; hidden files and virtual environments may."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    return next(
        (
            each.name
            for each in entries
            if not each.name.startswith(".") and not (each / "pyvenv.cfg").is_file()
        ),
        "",
    )


def _manifest(folder: Path) -> dict | None:
    """{"course", "version", "files": path -> `Fingerprint`}; None where no course was laid.

    Raises `CourseError` for one that cannot be read, or of another course.
    """
    path = folder / layout.MANIFEST
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        files = {name: Fingerprint(*marks) for name, marks in found["files"].items()}
        course, version = str(found["course"]), str(found["version"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CourseError(
            f"cannot read {path}, which says what you have changed: name a new folder and copy your files into it"
        ) from error
    if course != layout.NAME:
        raise CourseError(f"{folder} holds another course ({course}): name a new or an empty folder")
    return {"course": course, "version": version, "files": files}


# ----- what is to be done -----


def fingerprint(name: str, content: bytes) -> Fingerprint:
    """The source of a notebook is that of its cells, without outputs and counts; that of another file is all of it."""
    whole = hashlib.sha256(content).hexdigest()
    if not name.endswith(".ipynb"):
        return Fingerprint(whole, whole)
    try:
        cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(content)["cells"]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # no notebook any more: changed
        return Fingerprint(whole, whole)
    written = json.dumps(
        [cell for cell in cells if cell[1].strip()]
    )  # running the last cell adds an empty one
    return Fingerprint(whole, hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest())


def _plan(folder: Path, files: Mapping[str, bytes], manifest: dict | None) -> Plan:
    laid = manifest["files"] if manifest else {}
    plan = Plan(folder, manifest["version"] if manifest else "")
    for name, content in files.items():
        plan.manifest[name] = mark = fingerprint(name, content)
        there = _fingerprint_of(folder, name)
        if there is None:
            plan.new.append(name)
            plan.writes[name] = content
        elif _is_as_laid(there, mark, laid.get(name)):
            plan.replaced.append(name)
            plan.writes[name] = content
        elif there.source != mark.source:
            plan.kept.append(name)
            if name not in laid or laid[name].source != mark.source:
                _lay_beside(plan, name, content, laid)
    plan.manifest |= {
        name: mark for name, mark in laid.items() if _is_beside(name) and name not in plan.manifest
    }
    plan.gone = [name for name in laid if name not in plan.manifest and (folder / name).exists()]
    return plan


def _is_as_laid(there: Fingerprint, mark: Fingerprint, laid: Fingerprint | None) -> bool:
    """Whether a file that differs from the course's is what an earlier start laid: never touched, or run only."""
    if laid is None or there.content == mark.content:
        return False
    return there.content == laid.content or laid.source == there.source != mark.source


def _lay_beside(plan: Plan, name: str, content: bytes, laid: Mapping[str, Fingerprint]) -> None:
    """The course's version under a name that the student has not written under."""
    mark = plan.manifest[name]
    for other in _names_beside(name):
        there = _fingerprint_of(plan.folder, other)
        if there is None or there.source in (mark.source, getattr(laid.get(other), "source", "")):
            break
    plan.beside[name] = other
    plan.writes[other] = content
    plan.manifest[other] = mark


def _names_beside(name: str) -> Iterator[str]:
    """exercises/ex01.py: exercises/ex01.new.py, exercises/ex01.new2.py, …"""
    folder, _, file = name.rpartition("/")
    stem, _, kind = file.partition(".")
    yield f"{folder}/{stem}.new.{kind}"
    number = 2
    while True:
        yield f"{folder}/{stem}.new{number}.{kind}"
        number += 1


def _is_beside(name: str) -> bool:
    return name.rpartition("/")[2].split(".")[1].startswith("new")


def _fingerprint_of(folder: Path, name: str) -> Fingerprint | None:
    """Of what lies there; None for nothing."""
    path = folder / name
    if path.is_dir():
        raise CourseError(f"{path} is a folder, and the course has a file of that name: move it away")
    return fingerprint(name, path.read_bytes()) if path.exists() else None


# ----- doing it -----


def _carry_out(plan: Plan, version: str) -> None:
    """All of it or nothing: files are written into a folder of their own first, then moved in."""
    known = {
        "course": layout.NAME,
        "version": version,
        "files": {name: list(mark) for name, mark in sorted(plan.manifest.items())},
    }
    noted = {layout.MANIFEST: (json.dumps(known, indent=1) + "\n").encode()}
    # So that one that is killed on the way can be run again: a first start is known as one, and a file that was not
    # brought up to date yet is not taken for the student's.
    files = plan.writes | noted if plan.before else noted | plan.writes
    made: list[Path] = []
    try:
        _make_folder(plan.folder, made)
        for left in plan.folder.glob(f"{SCRATCH}*/"):  # of a start that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=plan.folder) as scratch:
            staged, before = Path(scratch, "new"), Path(scratch, "before")
            _write(staged, files)
            _write(
                before,
                {name: (plan.folder / name).read_bytes() for name in files if (plan.folder / name).exists()},
            )
            for name in files:
                _make_folder((plan.folder / name).parent, made)
            _move_in(plan.folder, staged, before, list(files))
    except BaseException:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _make_folder(folder: Path, made: list[Path]) -> None:
    """Make a folder and those above it, and note which were made."""
    for each in (*reversed(folder.parents), folder):
        if not each.exists():
            each.mkdir()
            made.append(each)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _move_in(folder: Path, staged: Path, before: Path, names: Sequence[str]) -> None:
    """In this order. What was there before is put back where one cannot be moved."""
    moved: list[str] = []
    try:
        for name in names:
            moved.append(name)
            (staged / name).replace(folder / name)
    except BaseException:
        for name in moved:
            if (before / name).exists():
                (before / name).replace(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
        raise


# ----- the report -----


def _report(plan: Plan, version: str) -> list[str]:
    lines = [_summary(plan, version)]
    lines += [
        f"You changed {name}: it stays, and the new one is {other}." for name, other in plan.beside.items()
    ]
    if same := [name for name in plan.kept if name not in plan.beside]:
        lines.append(f"Yours, and left alone: {_listed(same)}.")
    if plan.gone:
        lines.append(f"No longer in the course, and left alone: {_listed(plan.gone)}.")
    there = "" if plan.folder == Path.cwd() else f"cd {shlex.quote(str(plan.folder))} && "
    return [*lines, f"Open notebook 01: {there}{_lesson()} lab"]


def _summary(plan: Plan, version: str) -> str:
    if not plan.before:
        return f"{plan.folder} holds the course {version}: {_counted(plan.manifest)}."
    if not plan.writes:
        return f"{plan.folder} holds the course {version}: nothing is new."
    moved = version if plan.before == version else f"{version}, until now {plan.before}"
    done = [
        f"{len(plan.new)} new" if plan.new else "",
        f"{len(plan.replaced)} replaced" if plan.replaced else "",
    ]
    counts = ", ".join(filter(None, done)) or "no file of yours was touched"
    return f"{plan.folder} holds the course {moved}: {counts}."


def _lesson() -> str:
    """The command of this Python's environment, as one types it from anywhere."""
    own = Path(sys.executable).with_name("lesson")
    return "lesson" if shutil.which("lesson") == str(own) or not own.exists() else shlex.quote(str(own))


def _counted(names: Mapping[str, object]) -> str:
    """ "7 notebooks, 8 exercises and 49 recorded results"."""
    counts = [
        (sum(layout.is_in(folder, name) and name.endswith(suffix) for name in names), label)
        for folder, suffix, label in KINDS
    ]
    *most, last = [f"{count} {label}" for count, label in counts if count]
    return f"{', '.join(most)} and {last}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
