"""Notebooks that run where the course was not set up: Colab, Kaggle, a hub. Their first cell calls `prepare`."""

from __future__ import annotations

import re
import sys
import warnings
from importlib import metadata
from pathlib import Path
from types import ModuleType

from IPython.display import clear_output

from lessonlib import layout
from lessonlib.errors import CourseError
from lessonlib.start import beside_notebook


def prepare(is_new: bool) -> None:
    """Make a notebook's host ready. Where the course was there already and the host needs nothing, do nothing.

    Args:
        is_new: the notebook has just installed the course.

    Raises `CourseError` where the kernel has to be started again, or the notebook's folder holds something else.
    """
    if is_new:
        clear_output()  # of pip's many lines
        if layout.around() is None:
            print(beside_notebook(Path.cwd()))
    if "google.colab" in sys.modules:  # it shows widgets of others only when it is asked to
        from google.colab import output

        output.enable_custom_widget_manager()
    if is_new and (old := outdated()):
        raise CourseError(
            f"{', '.join(old)} was loaded before pip brought another version: restart the kernel, then run this again"
        )


def outdated() -> list[str]:
    """What the course asks for that this process has loaded in another version than the one installed now."""
    asked = [re.match(r"[\w.-]+", each) for each in metadata.requires(layout.NAME) or ()]
    loaded = {name[0]: sys.modules[name[0]] for name in asked if name and name[0] in sys.modules}
    return [name for name, module in loaded.items() if _version(module) not in (None, metadata.version(name))]


def _version(module: ModuleType) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Click's, of this very name
        return getattr(module, "__version__", None)
