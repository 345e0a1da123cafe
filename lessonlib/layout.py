"""Where the course lies: its notebooks, exercises, worked answers and recorded results.

Three kinds of folder hold them: a clone; a folder that `lesson start` made; and the installed wheel, which carries
them in `lessonlib/course`. Standard library only: the wheel is built with this.
"""

from __future__ import annotations

from pathlib import Path

from lessonlib.errors import CourseError
from lessonlib.regions import stubs

NAME = "continuous-batching-course"
MANIFEST = ".lesson.json"  # marks a folder that `lesson start` made
PACKAGE = Path(__file__).resolve().parent
FIRST = "notebooks/01_the_elevator_that_waits.ipynb"  # to open
CARRIED = PACKAGE / "course"  # filled when the wheel is built
SOLUTIONS, EXERCISES, RESULTS = "solutions", "exercises", "benchmarks/results"
SITE = "site"  # what the pages of `lessonlib.site` are made with
HANDED_OUT = (
    "notebooks/[0-9][0-9]_*.ipynb",
    "notebooks/rides/*.json.gz",
    f"{EXERCISES}/ex[0-9][0-9]*.py",
    f"{RESULTS}/*.json",
    f"{RESULTS}/*.txt",
    f"{SOLUTIONS}/ex[0-9][0-9]*.py",
)


def clone() -> Path | None:
    """The clone that lessonlib is imported from; None where a wheel is installed."""
    folder = PACKAGE.parent
    return folder if (folder / "pyproject.toml").is_file() else None


def source() -> Path:
    """The course as it came: the clone, or what the wheel carries."""
    return clone() or CARRIED


def around() -> Path | None:
    """The course's folder that the working directory lies in: a clone or a started one."""
    return next(filter(is_course, _upward()), None)


def home() -> Path:
    """The student's course: the folder around the working directory, else the course as it came."""
    return around() or source()


def is_course(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() or is_clone(folder)


def is_clone(folder: Path) -> bool:
    return (folder / "lessonlib" / Path(__file__).name).is_file()


def find_folder(folder: str | Path) -> Path:
    """`folder` below the working directory or below the nearest of its parents that has it, up to the course's own
    folder; else in the clone. What a wheel carries is not for writing in, and is not looked at.

    Raises `CourseError` where there is none.
    """
    for base in _upward():
        if (base / folder).is_dir():
            return base / folder
        if is_course(base):
            break
    if (copy := clone()) and (copy / folder).is_dir():
        return copy / folder
    raise CourseError(
        f"no folder {folder} in {Path.cwd()} or above it: go to the course's folder, which `lesson start` makes, "
        "or name one"
    )


def results() -> Path:
    """The folder of recorded results: the student's, else those that came with the course."""
    own = home() / RESULTS
    return own if own.is_dir() else source() / RESULTS


def handed_out(root: Path, with_solutions: bool = True) -> dict[str, bytes]:
    """What a student gets of a clone or of a wheel's copy: path below the course's folder -> content.

    Exercises are made from the worked answers where those are there, so that nothing that was written into a
    clone's own exercises is handed out.
    """
    paths = sorted(path for pattern in HANDED_OUT for path in root.glob(pattern) if path.is_file())
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
    if made := {f"{EXERCISES}/{name}": text.encode() for name, text in stubs(root / SOLUTIONS).items()}:
        files = {name: content for name, content in files.items() if not is_in(EXERCISES, name)} | made
    return {name: files[name] for name in sorted(files) if with_solutions or not is_in(SOLUTIONS, name)}


def is_in(folder: str, name: str) -> bool:
    """Whether a path below the course's folder lies in one of its folders."""
    return name.startswith(f"{folder}/")


def _upward() -> tuple[Path, ...]:
    """The working directory and its parents, nearest first."""
    here = Path.cwd()
    return here, *here.parents
