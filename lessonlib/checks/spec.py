"""What a task is: its inputs, the expected answer, the properties that an answer must have, and its hints.

A task's inputs are a dict, parameter → value, in the order of the function's parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from lessonlib.counting import count as count
from lessonlib.trace import Trace

Given = dict[str, Any]

MAX_SHOWN = 300  # characters of one value
PYTHON, INTERPRETER, GPU = TIERS = ("python", "interpreter", "gpu")  # each can do what those before it can


class WrongForm(Exception):  # noqa: N818 - a verdict on an answer, not an error of the checker
    """The answer is of another kind than was asked for; the text is a sentence that says so."""


class ChangedInput(WrongForm):
    """The answer came with a change to what was only to be read; the text is a sentence that says so."""


class CannotRun(Exception):  # noqa: N818 - says something of this machine, not of the answer
    """The inputs are more than this machine can hold; the text says why."""


@dataclass(frozen=True)
class Property:
    """One thing that must hold of every answer: its name, and `holds(given, answer, expected)`."""

    name: str
    holds: Callable[[Given, Any, Any], bool]


def promise(name: str) -> Callable[[Callable[[Given, Any, Any], bool]], Property]:
    """Makes a function `holds(given, answer, expected)` the property of this name."""
    return partial(Property, name)


@dataclass(frozen=True)
class Speed:
    """How fast a right answer must be on a GPU, as a share of a reference's speed in the same run.

    Attributes:
        property: what must hold, as a sentence.
        share: the least share of the reference's speed.
        cases: name of a batch → the harness's inputs that make it.
        reference: a file with a function of the task's name. It runs in a process of its own, so that a
            student's file cannot call it.
        packages: what the reference may import beside what a student may.
        close: whether two answers at a case's full size agree.
    """

    property: str
    share: float
    cases: Mapping[str, Given]
    reference: Path
    packages: tuple[str, ...]
    close: Callable[[Any, Any], bool]


@dataclass(frozen=True)
class Parts:
    """Functions of the same file that a right answer must be made of.

    Attributes:
        property: what must hold, as a sentence.
        functions: their names.
        least: how often each of them must be called at the least, `least(given, expected)`, in the same order.
    """

    property: str
    functions: tuple[str, ...]
    least: Callable[[Given, Any], Sequence[int]]


@dataclass(frozen=True)
class Task:
    """One function that a student writes, or a few that belong together.

    Attributes:
        id, title, function: "ex01.1", what it is about, and the function's name.
        cases: the inputs of one check, small ones first; the large ones are drawn from the generator.
        smaller: inputs a little smaller than these, to find the smallest that still fail.
        expected: the right answer, `expected(**given)`.
        read: brings an answer to the form in which it is compared, or raises `WrongForm`; `CannotRun` where the
            inputs were too much for this machine.
        properties: in the order in which they are tried on one answer; together they leave only `expected`.
        hints: three, from a nudge to nearly the answer.
        explain: where the expected answer comes from, as a phrase; None for nothing to say.
        built_on: ids of earlier tasks of the same file whose functions this one calls.
        others: further functions of the task, name → parameters. Inputs with these names go to that one.
        rides: a case as Traces for the elevator, by name, `rides(given, answer, expected)`; the answer is None where
            none could be read. It may raise `ValueError` for an answer that is no ride.
        shown: texts of a wrong answer and of the expected one, where the whole of both says little.
        through: the harness's function that calls the student's; "" for a plain call.
        cases_on_gpu: further inputs that only a GPU is given.
        made_of: the parts that a right answer must be made of, where it must.
        speed: what is asked of a right answer's speed.
        drawn_for: a function of the file, without parameters, that says for whom the inputs are drawn: `cases` gets
            its answer beside the generator, and raises `WrongForm` for one that will not do. "" for nobody.
        kept_back: what a report says in place of the expected answer where none could be read, since it would give
            too much away; "" for the expected answer itself.
    """

    id: str
    title: str
    function: str
    cases: Callable[..., Iterator[Given]]
    smaller: Callable[[Given], Iterator[Given]]
    expected: Callable[..., Any]
    read: Callable[[Any, Given], Any]
    properties: tuple[Property, ...]
    hints: tuple[str, str, str]
    explain: Callable[[Given, Any], str] | None = None
    built_on: tuple[str, ...] = ()
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rides: Callable[[Given, Any, Any], Mapping[str, Trace]] | None = None
    shown: Callable[[Any, Any], tuple[str, str]] | None = None
    through: str = ""
    cases_on_gpu: Callable[[Random], Iterator[Given]] | None = None
    made_of: Parts | None = None
    speed: Speed | None = None
    drawn_for: str = ""
    kept_back: str = ""

    @property
    def functions(self) -> tuple[str, ...]:
        """Every function of the task."""
        return self.function, *self.others

    @property
    def promises(self) -> tuple[str, ...]:
        """What must hold of an answer, in words, in the order in which it is looked at."""
        also = (part.property for part in (self.made_of, self.speed) if part is not None)
        return *(property_.name for property_ in self.properties), *also

    def called(self, given: Given) -> str:
        """The function that these inputs are for."""
        names = (name for name, parameters in self.others.items() if parameters == tuple(given))
        return next(names, self.function)


@dataclass(frozen=True)
class Exercise:
    """One file of a student's.

    Attributes:
        id, tasks: the file's name without ".py", and what is in it.
        packages: what it may import beside the standard library.
        tier: the lowest tier that can run it.
        harness: file name beside the child's program → file copied there. The first is the module that
            `Task.through` names functions of.
        patience: how many times longer than usual it may take.
    """

    id: str
    tasks: tuple[Task, ...]
    packages: tuple[str, ...] = ()
    tier: str = PYTHON
    harness: Mapping[str, Path] = field(default_factory=dict)
    patience: int = 1


# ----- reading answers -----


def whole(value: Any, what: str) -> int:
    """A whole number. NumPy's are fine; 3.0, True and "3" are not."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise WrongForm(f"{what} should be a whole number; {show(value)} is {kind(value)}.")
    return value


def number(value: Any, what: str) -> float:
    """Any number but nan or inf."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongForm(f"{what} should be a number; {show(value)} is {kind(value)}.")
    if not math.isfinite(value):
        raise WrongForm(f"{what} should be a finite number, not {value}: was something divided by 0?")
    return float(value)


def parts(value: Any, names: Sequence[str]) -> Sequence[Any]:
    """A tuple or list with one item for each name."""
    wanted = f"The answer should be ({', '.join(names)})"
    if not isinstance(value, tuple | list):
        raise WrongForm(f"{wanted}; what came back is {kind(value)}.")
    if len(value) != len(names):
        raise WrongForm(f"{wanted}: {count(len(names), 'part')}, not {len(value)}.")
    return value


def whole_list(value: Any, what: str, length: int | None = None, each: str = "slot") -> list[int]:
    """Whole numbers in a list, a tuple or a one-dimensional array; `length` of them, one for `each`, where given."""
    if isinstance(value, np.ndarray):
        if value.ndim != 1:
            raise WrongForm(f"{what} should have one dimension; its shape is {value.shape}.")
        if value.dtype.kind not in "iu" and value.size:
            raise WrongForm(f"{what} should hold whole numbers; its dtype is {value.dtype}.")
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise WrongForm(f"{what} should be an array or a list; what came back is {kind(value)}.")
    if length is not None and len(value) != length:
        raise WrongForm(
            f"{what} should have {count(length, 'place')}, one for each {each}; it has {len(value)}."
        )
    return [whole(item, f"each place of {what}") for item in value]


def close(left: float, right: float) -> bool:
    """Equal but for rounding."""
    return math.isclose(left, right, rel_tol=1e-9)


# ----- values as text -----


def kind(value: Any) -> str:
    """What a value is, with its article: "a list", "None"."""
    if value is None:
        return "None"
    name = getattr(value, "type", "") or type(value).__name__
    name = {"ndarray": "NumPy array", "str": "string", "bool": "truth value"}.get(name, name)
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def show(value: Any) -> str:
    """A value as one would type it, cut where it is long."""
    text = _show(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def _show(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"np.array({_show(value.tolist())})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_show, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, list):
        return f"[{', '.join(map(_show, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{'-' if value < 0 else ''}np.{'nan' if math.isnan(value) else 'inf'}"
    return repr(value)


def show_call(function: str, given: Given) -> str:
    """The call as one would type it."""
    return f"{function}({', '.join(f'{name}={show(value)}' for name, value in given.items())})"
