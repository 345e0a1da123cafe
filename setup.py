"""Puts the course itself beside its library, so that a wheel is all a student needs.

Everything else about the build stands in pyproject.toml. LESSONLIB_WITHOUT_SOLUTIONS=1 keeps the worked answers back.
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # a build in an environment of its own does not look here

from lessonlib import layout  # noqa: E402

WITH_SOLUTIONS = os.environ.get("LESSONLIB_WITHOUT_SOLUTIONS", "0") in ("", "0")
TELLS_SOLUTIONS = (f"{layout.SOLUTIONS}/", "tests/")  # the tests prove the solutions


class BuildWithCourse(build_py):
    """The packages, and the course in `lessonlib/course`."""

    def run(self):
        if self.editable_mode:
            super().run()
            return
        for package in ("lessonlib", "kernels"):  # what an earlier build left would be in the wheel too
            shutil.rmtree(Path(self.build_lib, package), ignore_errors=True)
        super().run()
        carried = Path(self.build_lib, "lessonlib", layout.CARRIED.name)
        files = layout.handed_out(HERE, WITH_SOLUTIONS)
        files |= {
            path.relative_to(HERE).as_posix(): path.read_bytes() for path in (HERE / layout.SITE).glob("*.*")
        }
        for name, content in files.items():
            (carried / name).parent.mkdir(parents=True, exist_ok=True)
            (carried / name).write_bytes(content)


class SourceWithCourse(sdist):
    """The sources, whose exercises are those that are handed out."""

    def make_release_tree(self, base_dir, files):
        if not WITH_SOLUTIONS:
            files = [name for name in files if not name.startswith(TELLS_SOLUTIONS)]
        super().make_release_tree(base_dir, files)
        for name, content in layout.handed_out(HERE).items():
            if layout.is_in(layout.EXERCISES, name):
                path = Path(base_dir, name)
                path.unlink(missing_ok=True)  # it may be a link to the clone's own file
                path.write_bytes(content)


setup(cmdclass={"build_py": BuildWithCourse, "sdist": SourceWithCourse})
