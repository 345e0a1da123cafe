"""Who may call an engine, and when: one call at a time, in the process that made it, until it is closed."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar, cast

from lessonlib.errors import CourseError

Call = TypeVar("Call", bound=Callable[..., Any])
_inside: ContextVar[Any] = ContextVar("inside", default=None)
_made_in: list[int] = []  # the process of the first engine


def check_process() -> None:
    """Raise `CourseError` in a process forked from one that has an engine: the threads of PyTorch stayed there."""
    _made_in[:] = _made_in or [os.getpid()]
    if _made_in != [os.getpid()]:
        raise CourseError(
            f"process {os.getpid()} was forked from {_made_in[0]}, which has an LLM: start processes with "
            "multiprocessing's 'spawn', and make an LLM in each"
        )


def in_turn(method: Call) -> Call:
    """A method of an engine that waits until the calls of other threads have ended.

    Raises `CourseError` after `close`, in a forked process, and inside another call of the same engine.
    """

    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(engine: Any, *args: Any, **options: Any) -> Any:
        check_process()
        try:
            signature.bind(engine, *args, **options)
        except TypeError as error:
            raise CourseError(f"{method.__name__}: {error}; docs/vllm.md says what it takes") from None
        if _inside.get() is engine:
            raise CourseError(
                f"{method.__name__.strip('_')} was called inside a step, by a policy or a hook: call it between steps"
            )
        # A context of its own ends with the call, however it ends.
        return copy_context().run(_take_turn, method, engine, *args, **options)

    return cast(Call, call)


def _take_turn(method: Callable[..., Any], engine: Any, *args: Any, **options: Any) -> Any:
    _inside.set(engine)
    with engine.lock:
        if engine.is_closed:
            raise CourseError("this LLM is closed: make a new one")
        return method(engine, *args, **options)
