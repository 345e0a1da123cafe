"""Cases made of requests, which are dicts: one of them replaced, and lists as answers give them."""

from __future__ import annotations

from typing import Any

import numpy as np

from lessonlib.checks.spec import Given, WrongForm, kind

Request = dict[str, Any]


def replaced(given: Given, name: str, index: int, item: Any) -> Given:
    """The same case with another item in one place of one of its lists."""
    return {**given, name: [*given[name][:index], item, *given[name][index + 1 :]]}


def read_list(value: Any, what: str) -> list[Any]:
    """A list, whatever it holds; an array's rows are lists."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise WrongForm(f"{what} should be a list; what came back is {kind(value)}.")
    return list(value)
