"""Where the exercises lie, seen from a terminal or from a notebook in a folder beside them."""

from __future__ import annotations

from pathlib import Path

from lessonlib.errors import CourseError


def find_folder(folder: str | Path) -> Path:
    """`folder` below the working directory or below the nearest of its parents that has it.

    Raises `CourseError` where there is none.
    """
    here = Path.cwd()
    for base in (here, *here.parents):
        if (base / folder).is_dir():
            return base / folder
    raise CourseError(f"no folder {folder} in {here} or above it: go to the course's folder, or name one")
