"""The far side: runs a student's file in a process of its own and answers one JSON line for each request.

This file is copied alone into the scratch folder and needs the standard library only, so nothing of the
course can be reached from there. The checker imports it too, for the one way in which values travel.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import io
import json
import numbers
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TextIO

MAX_ITEMS = 20_000  # of one answer, all its lists together
MAX_DEPTH = 8
MAX_TEXT = 1_000  # characters of one string, repr or message
MAX_SOURCE = 100  # characters of one line of the student's file
MAX_FUNCTIONS = 50  # of one file whose names are reported, beside those that are asked for
MAX_PRINTED = 300  # characters of what was printed that are kept
MAX_LINE = 1 << 20  # characters of one line between the processes

MEMORY, PROCESSES, FILES = LIMITS = ("memory", "processes and threads", "room for files")
ERRNO_LIMITS = {
    errno.ENOMEM: MEMORY,
    errno.EAGAIN: PROCESSES,
    errno.ENOSPC: FILES,
    errno.EFBIG: FILES,
    errno.EMFILE: FILES,
}


class TooLarge(Exception):  # noqa: N818 - says something of a value, and is always caught
    """A value with more items, or deeper, than what travels."""


@dataclass(frozen=True)
class Other:
    """A value of a type that does not travel: what it was, in words."""

    type: str
    text: str

    def __repr__(self) -> str:
        return self.text


def encode(value: Any) -> Any:
    """`value` as JSON: numbers, strings and None as they are, the rest under the name of its kind.

    NumPy's numbers become Python's. Raises `TooLarge` past MAX_ITEMS.
    """
    return _encode(value, [MAX_ITEMS], MAX_DEPTH)


def _encode(value: Any, room: list[int], depth: int) -> Any:
    room[0] -= 1
    if room[0] < 0 or depth < 0:
        raise TooLarge
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + "…"
    if isinstance(value, numbers.Integral):
        whole = int(value)
        return (
            whole
            if whole.bit_length() <= 64
            else _other(value, f"a whole number of {whole.bit_length():,} bits")
        )
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, list | tuple):
        return {type_name(value): [_encode(item, room, depth - 1) for item in list(value)]}
    if isinstance(value, dict):
        return {"dict": [[_encode(part, room, depth - 1) for part in pair] for pair in list(value.items())]}
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.bool_):
        return bool(value)
    if numpy is not None and isinstance(value, numpy.ndarray) and value.dtype.kind in "biuf":
        room[0] -= value.size
        if room[0] < 0:
            raise TooLarge
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    return _other(value, _safely(repr, value))


def _encode_grown(value: Any) -> Any:
    """An argument after the call, which may have grown past all bounds."""
    try:
        return encode(value)
    except TooLarge:
        return _other(value, f"a {type(value).__name__} grown past {MAX_ITEMS:,} items")


def type_name(value: list[Any] | tuple[Any, ...]) -> str:
    """ "list" or "tuple", for their subclasses too."""
    return "list" if isinstance(value, list) else "tuple"


def _other(value: Any, text: str) -> dict[str, str]:
    return {"other": type(value).__name__, "text": text[:MAX_TEXT]}


def _safely(say: Any, value: Any) -> str:
    """A student's own `__repr__` or `__str__` may fail as well."""
    try:
        return str(say(value))
    except Exception:
        return f"<a {type(value).__name__}>"


def decode(data: Any) -> Any:
    """What `encode` was given."""
    if not isinstance(data, dict):
        return data
    if "array" in data:
        import numpy as np

        return np.array(data["array"], data["dtype"])
    if "dict" in data:
        return {decode(key): decode(value) for key, value in data["dict"]}
    if "tuple" in data:
        return tuple(decode(item) for item in data["tuple"])
    if "list" in data:
        return [decode(item) for item in data["list"]]
    return Other(data["other"], data["text"])


def limit_of(error: BaseException) -> str:
    """Which limit of this process an exception is the end of, one of LIMITS; "" for any other exception."""
    if isinstance(error, MemoryError):
        return MEMORY
    if isinstance(error, OSError):
        return ERRNO_LIMITS.get(error.errno or 0, "")
    return PROCESSES if isinstance(error, RuntimeError) and "start new thread" in _safely(str, error) else ""


class Sink(io.TextIOBase):
    """Takes whatever is printed and keeps only how it begins."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.kept += text[: MAX_PRINTED - len(self.kept)]
        return len(text)

    def take(self) -> str:
        """What was printed since the last time."""
        kept, self.kept = self.kept, ""
        return kept


class Submission:
    """One student's file, loaded.

    `harness` names the module that calls it where a plain call is not enough, `wanted` its functions that will be
    called.
    """

    def __init__(self, name: str, harness: str, wanted: list[str]) -> None:
        self.name, self.harness, self.wanted = name, harness, wanted
        self.module = types.ModuleType(name.removesuffix(".py"))
        self.lines: list[str] = []

    def load(self) -> dict[str, Any]:
        """Run the file's top level. {"functions": [...]}, or {"raised": ...}."""
        try:
            with open(self.name, "rb") as file:
                source = file.read()
            self.lines = source.decode("utf-8", "replace").splitlines()
            sys.modules[self.module.__name__] = self.module
            exec(compile(source, self.name, "exec", dont_inherit=True), self.module.__dict__)
            return {"functions": self._functions()}
        except BaseException as error:
            return {"raised": self.describe(error)}

    def _functions(self) -> list[str]:
        """Those wanted that the file has, from wherever, and then others that it defines itself."""
        there = {name: value for name, value in vars(self.module).items() if callable(value)}
        own = [
            name
            for name, value in there.items()
            if not name.startswith("_") and getattr(value, "__module__", "") == self.module.__name__
        ]
        others = [name for name in own if name not in self.wanted]
        return [name for name in self.wanted if name in there] + others[:MAX_FUNCTIONS]

    def call(self, function: str, encoded: list[Any], through: str, counted: list[str]) -> dict[str, Any]:
        """One call: {"answer": ...} or {"raised": ...}, and {"changed": {index: value}} of its inputs.

        {"calls": {name: times}} says how often it called each of the file's functions in `counted`.

        With `through`, that function of the harness is called with the student's and the arguments. An error
        with a true attribute `lost` says that this process is of no more use: {"lost": True}. One that a limit
        of this process brought about has its name: {"limit": "memory"}.
        """
        arguments = [decode(argument) for argument in encoded]
        called = getattr(self.module, function)
        try:
            if through:
                called = functools.partial(getattr(importlib.import_module(self.harness), through), called)
            with self._counting(counted) as calls:
                answer = called(*arguments)
            reply: dict[str, Any] = {"answer": encode(answer), "calls": calls}
        except TooLarge:
            reply = {"large": True}
        except BaseException as error:
            raised = self.describe(error)
            by_hand = raised["source"].startswith("raise")  # of the student's own will
            reply = {
                "raised": raised,
                "lost": bool(getattr(error, "lost", False)),
                "limit": "" if by_hand else limit_of(error),
            }
        reply["changed"] = {}
        for index, (before, argument) in enumerate(zip(encoded, arguments, strict=True)):
            after = _encode_grown(argument)
            if json.dumps(after) != json.dumps(before):  # as text: nan is not equal to itself
                reply["changed"][str(index)] = after
        return reply

    @contextlib.contextmanager
    def _counting(self, names: list[str]) -> Iterator[dict[str, int]]:
        """Within it, each call of one of these functions by its name in the file is counted."""
        own = vars(self.module)
        calls = dict.fromkeys(names, 0)
        written = {name: own[name] for name in names if callable(own.get(name))}

        def counting(name: str) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                calls[name] += 1
                return written[name](*arguments, **options)

            return call

        own.update({name: counting(name) for name in written})
        try:
            yield calls
        finally:
            own.update(written)

    def describe(self, error: BaseException) -> dict[str, Any]:
        """The exception, and the last line of the student's own file that it came through."""
        line, function = 0, ""
        for frame, number in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename == self.name:
                line, function = number, frame.f_code.co_name
        text = _safely(str, error)
        if isinstance(error, SyntaxError) and error.filename == self.name:
            line, text = error.lineno or 0, error.msg
        source = self.lines[line - 1].strip() if 0 < line <= len(self.lines) else ""
        raised = {"type": type(error).__name__, "text": text[:MAX_TEXT]}
        return {**raised, "line": line, "function": function, "source": source[:MAX_SOURCE]}


def serve(requests: TextIO, answers: TextIO, submission: Submission) -> None:
    """Answer until the checker closes its end."""
    sink = Sink()
    for line in requests:
        request = json.loads(line)
        sys.stdout = sys.stderr = sink
        reply: dict[str, Any] = {}
        if "import" in request:
            for package in request["import"]:
                __import__(package)
        elif "load" in request:
            reply = submission.load()
        else:
            named = (request[name] for name in ("function", "arguments", "through", "counted"))
            reply = submission.call(*named)
        text = json.dumps({**reply, "id": request["id"], "printed": sink.take()})
        if len(text) > MAX_LINE:
            text = json.dumps({"large": True, "id": request["id"], "printed": "", "changed": {}})
        answers.write(text + "\n")
        answers.flush()


def main(requests_fd: str, answers_fd: str, settings: str) -> None:
    """Set the limits and the path, then serve. Works in the current folder, where the student's file lies.

    `settings` is JSON: "name" of the student's file, "wanted" (its functions that will be called), "harness" (a
    module beside this file, or ""), "site" (the folder of what may be imported) and "limits" (name of a resource →
    the most of it).
    """
    import resource

    chosen = json.loads(settings)
    for name, most in chosen["limits"].items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")  # where memory runs out all the same, this process goes first
    sys.path.append(chosen["site"])
    if chosen["harness"]:
        sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    requests = os.fdopen(int(requests_fd), encoding="utf-8")
    answers = os.fdopen(int(answers_fd), "w", encoding="utf-8")
    with requests, answers:
        serve(requests, answers, Submission(chosen["name"], chosen["harness"], chosen["wanted"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
