"""The elevator while it rides: prompts board between the steps of an engine, and their words come as they come.

The engine belongs to one thread, the one that runs the notebook's cells. Its steps are a task in that
thread's event loop. What the reader does in the browser arrives between two steps, and where it arrives in
another thread, as JupyterLab's newer kernels have it, it is handed over to that loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from inspect import Parameter, signature
from textwrap import shorten
from time import monotonic
from typing import Any, Protocol, cast

import anywidget
import numpy as np
import traitlets

from lessonlib.errors import CourseError
from lessonlib.trace import Kind, Trace
from lessonlib.viz import keyframes, style
from lessonlib.viz.ride import LONGEST_LABEL, Ride
from lessonlib.viz.widget import STYLE, script

HEAD = ("name", "slots", "num_steps", "block_size", "capacity", "poisoned")
OPEN = -1  # in place of an end: still on board, still waiting
UNKNOWN = -1
SEND_EVERY = 0.05  # seconds between two updates; steps that come faster share one
REPR_RIDERS = 12
WAITING, RIDING, HOME, ABORTED = "waiting", "riding", "home", "aborted"

Tables = dict[str, np.ndarray]


class Engine(Protocol):
    """What is ridden. An output has `request_id`, `prompt`, `finished`, `outputs[0].text`, `.finish_reason`."""

    @property
    def trace(self) -> Trace | None:
        """The record so far; None before the first step at the latest."""

    def add_request(self, request_id: str, prompt: str, params: Any = None) -> None:
        """Put a prompt in the queue, or raise `CourseError`."""

    def step(self) -> Sequence[Any]:
        """One step; an output for each request that it moved."""

    def abort(self, request_id: str) -> None:
        """Drop a request."""

    def has_unfinished_requests(self) -> bool:
        """Whether anyone is on board or waiting."""


@dataclass
class Rider:
    """A prompt and what came of it. `row` is its request in the Trace, `UNKNOWN` until that is certain."""

    id: str
    prompt: str
    text: str = ""
    state: str = WAITING
    reason: str = ""
    row: int = UNKNOWN

    @property
    def is_done(self) -> bool:
        return self.state in (HOME, ABORTED)

    def words(self) -> str:
        """One line about it."""
        state = f"{self.state} ({self.reason})" if self.reason else self.state
        said = f" → {shorten(self.text, 60, placeholder=' …')}" if self.text.strip() else ""
        return f"{self.id}, {state}: {shorten(self.prompt, 40, placeholder=' …')}{said}"


@dataclass
class Setting:
    """Something about the engine that the reader may change: one of `choices`, or a whole number in a range."""

    value: Any
    choices: tuple[Any, ...] = ()
    least: int = 0
    most: int = 0

    @classmethod
    def of(cls, name: str, given: Any, value: Any) -> Setting:
        """From a list of choices or a (least, most) pair. Raises `CourseError` for anything else."""
        if isinstance(given, tuple) and len(given) == 2 and all(isinstance(end, int) for end in given):
            setting = cls(value, least=given[0], most=given[1])
        elif isinstance(given, list) and given:
            setting = cls(value, choices=tuple(given))
        else:
            raise CourseError(
                f"{name}={given!r} is no setting: give a (least, most) pair or a list of choices"
            )
        setting.value = setting.read(name, value)
        return setting

    def read(self, name: str, text: Any) -> Any:
        """The value that a reader's text stands for. Raises `CourseError` for one that is not offered."""
        if self.choices:
            for choice in self.choices:
                if str(choice) == str(text):
                    return choice
            raise CourseError(f"{name} {text!r}: choose one of {', '.join(map(str, self.choices))}")
        try:
            number = int(text)
        except (TypeError, ValueError):
            number = self.least - 1
        if not self.least <= number <= self.most:
            raise CourseError(f"{name} {text!r}: give a whole number from {self.least} to {self.most}")
        return number

    def words(self) -> dict[str, Any]:
        """As the browser takes it."""
        if self.choices:
            return {"value": self.value, "choices": list(self.choices)}
        return {"value": self.value, "least": self.least, "most": self.most}


class LiveElevator(anywidget.AnyWidget):
    """Rides an engine: type a prompt, watch it board at the next step, read its words.

    Args:
        engine: see `Engine`; the course's `LLMEngine`, or anything with these five names. With `settings`: a
            function that makes one, called with each setting by name.
        prompts: prompts that wait when the doors first open.
        title: a line above the picture.
        params: what the engine gets beside each prompt that names none.
        settings: what the reader may change: a name -> a list of choices or a (least, most) pair; each starts
            at the default that `engine` has for that name. A change builds a new engine, and who is not home
            yet boards it from the start.

    Attributes:
        values: the settings as they are.
        speed: most steps a second; 0: as fast as the engine goes.
        running: whether the elevator goes on by itself; it then waits for riders when it is empty.
        note: what went wrong last, in one line, else empty.
    """

    _esm = script("live")
    _css = STYLE

    title = traitlets.Unicode("").tag(sync=True)
    speed = traitlets.Float(5.0, min=0.0).tag(sync=True)

    def __init__(
        self,
        engine: Engine | Callable[..., Engine],
        prompts: Sequence[str] = (),
        title: str = "",
        params: Any = None,
        settings: Mapping[str, Any] | None = None,
        **traits: Any,
    ) -> None:
        self._build: Callable[..., Engine] = cast(Callable[..., Engine], engine)
        self._settings = _settings(self._build, settings or {})
        self.params = params
        self.running, self.note = False, ""
        self._riders: dict[str, Rider] = {}
        self._params: dict[str, Any] = {}  # what each rider asked for
        self._move_in(self._build(**self.values) if settings else cast(Engine, engine))
        self._task: asyncio.Task[None] | None = None
        self._loop = _running_loop()
        self._watched, self._told_at = False, 0.0
        super().__init__(title=title, **traits)
        self.on_msg(self._hear)
        for prompt in prompts:
            self.board(prompt)

    def _move_in(self, engine: Engine) -> None:
        """Ride this engine from now on."""
        self.engine = engine
        self._here: dict[str, Rider] = {}  # those who boarded this engine
        self._strangers = False  # it carries requests that did not board here
        self._first_row = engine.trace.num_requests if engine.trace else 0
        self._feed = Feed()

    @property
    def values(self) -> dict[str, Any]:
        """The settings as they are, by name."""
        return {name: setting.value for name, setting in self._settings.items()}

    # ----- what a cell or a script does -----

    def set(self, name: str, value: Any) -> None:
        """Change a setting: a new engine takes over, and who is not home yet boards it from the start.

        Raises `CourseError` for an unknown setting, a value that is not offered, and what the new engine
        refuses; then the old one rides on.
        """
        if name not in self._settings:
            raise CourseError(f"no setting {name!r}: there are {', '.join(self._settings) or 'none'}")
        value = self._settings[name].read(name, value)
        engine = self._build(**{**self.values, name: value})
        self._settings[name].value = value
        self._move_in(engine)
        for rider in self._riders.values():
            rider.row = UNKNOWN
            if not rider.is_done:
                self._board_again(rider)
        self.note = ""
        self._go_on()
        self._tell_all()

    def _board_again(self, rider: Rider) -> None:
        rider.text, rider.state = "", WAITING
        try:
            self.engine.add_request(rider.id, rider.prompt, self._params.get(rider.id))
        except CourseError as error:
            rider.state, rider.reason = ABORTED, _one_line(error)
        else:
            self._here[rider.id] = rider

    def board(self, prompt: str, request_id: str | None = None, params: Any = None) -> str:
        """Put a prompt in the queue; it boards at the next step that has a slot for it. Returns its id.

        Raises `CourseError` for an empty prompt, an id in use, and what the engine refuses.
        """
        if not prompt.strip():
            raise CourseError("the prompt is empty: write a few words for the rider to go on from")
        name = request_id or self._new_id()
        if name in self._riders:
            raise CourseError(f"{name!r} has boarded before: give each rider an id of its own")
        self._params[name] = self.params if params is None else params
        self.engine.add_request(name, prompt, self._params[name])
        self._riders[name] = self._here[name] = Rider(name, prompt)
        self.note = ""
        self._go_on()
        self._tell()
        return name

    def _new_id(self) -> str:
        number = len(self._riders) + 1
        while f"rider {number}" in self._riders:
            number += 1
        return f"rider {number}"

    def abort(self, request_id: str) -> None:
        """Put a rider off for good, wherever it is. Raises `CourseError` for one who is not here."""
        rider = self._riders.get(request_id)
        if rider is None or rider.is_done:
            raise CourseError(f"no rider {request_id!r} to abort: it never came, or it is done")
        self.engine.abort(request_id)
        rider.state = ABORTED
        self._tell()

    def step(self) -> None:
        """One step of the engine. Raises what the engine raises."""
        for output in self.engine.step():
            self._note_words(output)
        if monotonic() - self._told_at >= SEND_EVERY:
            self._tell()

    def _note_words(self, output: Any) -> None:
        rider = self._riders.get(output.request_id)
        if rider is None:
            self._strangers = True
            rider = Rider(output.request_id, output.prompt)
            self._riders[rider.id] = self._here[rider.id] = rider
        if rider.is_done:
            return  # aborted while its step was under way
        answer = output.outputs[0]
        rider.text, rider.state = answer.text, HOME if output.finished else RIDING
        rider.reason = (answer.finish_reason or "") if output.finished else ""

    def ride(self, max_steps: int | None = None) -> None:
        """Run steps here and now: until everyone is home, or `max_steps` of them.

        Raises what the engine raises.
        """
        done = 0
        while self.engine.has_unfinished_requests() and (max_steps is None or done < max_steps):
            self.step()
            done += 1
        self._tell()

    def run(self) -> None:
        """Ride on by itself, giving way to the notebook between two steps.

        Raises `CourseError` where no event loop runs, as in a script.
        """
        if _running_loop() is None:
            raise CourseError("no event loop runs here: call ride() instead of run()")
        self.running, self.note = True, ""
        self._go_on()
        self._tell()

    def pause(self) -> None:
        """Stand still after the step under way."""
        self.running, self.note = False, ""
        self._tell()

    def _go_on(self) -> None:
        idle = self._task is None or self._task.done()
        if self.running and idle and self.engine.has_unfinished_requests():
            self._task = asyncio.get_running_loop().create_task(self._keep_riding())

    async def _keep_riding(self) -> None:
        while self.running and self.engine.has_unfinished_requests():
            due = monotonic() + (1 / self.speed if self.speed else 0)
            try:
                self.step()
            except Exception as error:  # whatever a student's engine raises: the reader sees it and goes on
                self.running = False
                self.note = _one_line(error)
            await asyncio.sleep(max(0.0, due - monotonic()))
        self._tell()

    @property
    def texts(self) -> dict[str, str]:
        """Every rider's words so far, by id."""
        return {rider.id: rider.text for rider in self._riders.values()}

    # ----- what the reader does -----

    def _hear(self, _: Any, content: Mapping[str, Any], __: Any) -> None:
        """A message from the browser, maybe in another thread: the engine's own thread takes it from here."""
        if self._loop is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._do, content)
        else:
            self._do(content)

    def _do(self, content: Mapping[str, Any]) -> None:
        acts = {
            "board": lambda: self.board(str(content.get("prompt", ""))),
            "abort": lambda: self.abort(str(content.get("rider"))),
            "run": self._run_for_reader,
            "pause": self.pause,
            "step": self._step_for_reader,
            "watch": self._watch,
            "set": lambda: self.set(str(content.get("name")), content.get("value")),
        }
        what = content.get("do")
        if what not in acts:
            return
        refused = False
        try:
            acts[what]()
        except Exception as error:  # as above
            refused, self.note = True, _one_line(error)
        self._tell(answer={"call": content.get("call"), "refused": refused})

    def _run_for_reader(self) -> None:
        self.run()
        if not self.engine.has_unfinished_requests():
            self.note = "Nobody to carry yet: the elevator waits for a rider."

    def _step_for_reader(self) -> None:
        self.pause()
        if self.engine.has_unfinished_requests():
            self.step()
        else:
            self.note = "Nobody is on board or waiting: board a rider first."

    # ----- what the browser is told -----

    def _tell(self, answer: Mapping[str, Any] | None = None) -> None:
        """What has changed since the last message, to the browsers that watch."""
        if self._watched:
            self.send({**self._news(), **self._says(), "answer": answer})

    def _watch(self) -> None:
        """A browser has just come, or has missed something."""
        self._watched = True
        self._tell_all()

    def _tell_all(self) -> None:
        """Everything, to the browsers that watch."""
        if self._watched:
            self._news()
            self.send({**self._feed.everything(), **self._says(), "answer": None})

    def _news(self) -> dict[str, Any]:
        self._told_at = monotonic()
        trace = self.engine.trace
        self._know_rows(trace)
        return self._feed.changes(trace, list(self._riders.values()))

    def _says(self) -> dict[str, Any]:
        settings = {name: setting.words() for name, setting in self._settings.items()}
        return {"running": self.running, "note": self.note, "settings": settings}

    def _know_rows(self, trace: Trace | None) -> None:
        """Find each rider in the Trace, which names nobody: requests stand there in the order they came.

        Where others have boarded too, nobody is pointed out rather than the wrong one.
        """
        if trace is None:
            return
        rejected = set(trace.rows(Kind.REJECT)["request"].tolist())
        rows = [row for row in range(self._first_row, trace.num_requests) if row not in rejected]
        certain = not self._strangers and len(rows) <= len(self._here)
        last = last_kinds(trace)
        for rider, row in zip(self._here.values(), rows, strict=False):
            rider.row = row if certain else UNKNOWN
            if certain and not rider.is_done:
                rider.state = WAITING if last.get(row) in (Kind.ARRIVE, Kind.PREEMPT) else RIDING

    # ----- where nothing moves -----

    def _still(self) -> Ride | None:
        trace = self.engine.trace
        self._know_rows(trace)
        return packed(trace) if trace else None

    def __repr__(self) -> str:
        ride = self._still()
        car = keyframes.summary([ride]).splitlines()[1:] if ride else ["  no step yet"]
        riders = [f"  {rider.words()}" for rider in self._riders.values()]
        if len(riders) > REPR_RIDERS:
            riders = [*riders[:REPR_RIDERS], f"  … and {len(riders) - REPR_RIDERS:,} more"]
        return "\n".join(["Live elevator", *car, *riders])

    def picture(self) -> style.Picture:
        """The key frames of the ride so far. Raises `CourseError` before there is one."""
        ride = self._still()
        if ride is None:
            raise CourseError("no step yet, so there is nothing to draw: call step() or ride() first")
        return keyframes.strip([ride], self.title)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        with suppress(CourseError):
            still, still_metadata = self.picture()._repr_mimebundle_()
            data, metadata = {**data, **still}, {**metadata, **still_metadata}
        return {**data, "text/plain": repr(self)}, metadata


def _settings(build: Callable[..., Engine], given: Mapping[str, Any]) -> dict[str, Setting]:
    if not given:
        return {}
    if not callable(build):
        raise CourseError("settings need a function that makes an engine of them: give that as `engine`")
    defaults = {name: parameter.default for name, parameter in signature(build).parameters.items()}
    if missing := [name for name in given if defaults.get(name, Parameter.empty) is Parameter.empty]:
        raise CourseError(f"setting {missing[0]!r} has no default in the function: give it one to start at")
    return {name: Setting.of(name, choices, defaults[name]) for name, choices in given.items()}


# ----- rows that grow -----


def packed(trace: Trace) -> Ride:
    """The ride on a clock of steps: the seconds in which nobody pressed a button are no part of it."""
    ride = Ride.from_trace(trace, trace.header.policy or trace.header.maker)
    return replace(ride, clock="steps", times=np.arange(ride.num_steps + 1.0))


def last_kinds(trace: Trace) -> dict[int, int]:
    """Request -> the kind of its last event."""
    request, kind = trace.events["request"], trace.events["kind"]
    return dict(zip(request.tolist(), kind.tolist(), strict=True))


def growing(ride: Ride, trace: Trace) -> Tables:
    """The packed ride's tables, rows in the order in which they begin: a step appends and rarely moves one.

    Counts of blocks stand in the row of their stay, span or step. An end that is not known yet is `OPEN`, so
    that who waits or rides on is no news.
    """
    order = np.lexsort((ride.stays[0], ride.stays[2]))
    stays = np.concatenate([ride.stays, _blocks_beside(ride.stays, ride.stay_blocks)])[:, order]
    stays[3, stays[4] == 0] = OPEN
    spans = np.concatenate([ride.spans, _blocks_beside(ride.spans, ride.span_blocks)])
    spans[0] = np.argsort(order)[spans[0]]
    steps = np.concatenate([ride.steps, _blocks_beside(ride.steps, ride.step_blocks)])
    return {
        "stays": stays,
        "spans": spans[:, np.lexsort((spans[1], spans[0], spans[2]))],
        "waits": _open_waits(ride.waits, trace),
        "steps": steps,
        "requests": ride.requests,
        "overheard": ride.overheard,
        "reasons": ride.reasons,
    }


def _blocks_beside(table: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    return blocks if blocks.shape[1] else np.zeros((len(blocks), table.shape[1]), np.int32)


def _open_waits(waits: np.ndarray, trace: Trace) -> np.ndarray:
    waits = waits[:, np.lexsort((waits[0], waits[1]))]
    latest = {request: place for place, request in enumerate(waits[0].tolist())}
    for request, kind in last_kinds(trace).items():
        if kind in (Kind.ARRIVE, Kind.PREEMPT):
            waits[2, latest[request]] = OPEN
    return waits


class Feed:
    """What the browsers hold, so that a message needs to say only what is new."""

    def __init__(self) -> None:
        self._head: dict[str, Any] | None = None
        self._tables: Tables = {}
        self._riders: dict[str, Rider] = {}
        self._number = 0

    def changes(self, trace: Trace | None, riders: Sequence[Rider]) -> dict[str, Any]:
        """The rows and words that differ from what is held; from now on these are held."""
        ride = packed(trace) if trace else None
        tables = growing(ride, trace) if ride and trace else {}
        message = {
            "tables": {name: row_changes(self._tables.get(name), table) for name, table in tables.items()},
            "riders": [
                rider_changes(self._riders.get(rider.id), rider)
                for rider in riders
                if self._riders.get(rider.id) != rider
            ],
        }
        self._head = {name: getattr(ride, name) for name in HEAD} if ride else None
        self._tables = tables
        self._riders = {rider.id: replace(rider) for rider in riders}
        self._number += 1
        return {**self._frame(fresh=False), **message}

    def everything(self) -> dict[str, Any]:
        """What is held, whole."""
        return {
            **self._frame(fresh=True),
            "tables": {name: row_changes(None, table) for name, table in self._tables.items()},
            "riders": [rider_changes(None, rider) for rider in self._riders.values()],
        }

    def _frame(self, fresh: bool) -> dict[str, Any]:
        return {"number": self._number, "fresh": fresh, "head": self._head}


def row_changes(before: np.ndarray | None, after: np.ndarray) -> dict[str, Any]:
    """{"rows": how many there are, "changed": [[place, *values], …]} for tables of a column a row."""
    shared = min(before.shape[1], after.shape[1]) if before is not None else 0
    changed = np.ones(after.shape[1], bool)
    if before is not None:
        changed[:shared] = (before[:, :shared] != after[:, :shared]).any(axis=0)
    places = np.flatnonzero(changed)
    return {
        "rows": after.shape[1],
        "changed": np.concatenate([places[None], after[:, places]]).T.tolist(),
    }


def rider_changes(before: Rider | None, rider: Rider) -> dict[str, Any]:
    """A rider's state, and of its words those after the first `keep` characters that have not changed."""
    keep = _same_start(before.text, rider.text) if before else 0
    state = {name: getattr(rider, name) for name in ("id", "state", "reason", "row")}
    prompt = {} if before else {"prompt": rider.prompt[:LONGEST_LABEL]}
    return {**state, **prompt, "keep": keep, "more": rider.text[keep:]}


def _same_start(before: str, after: str) -> int:
    """How many characters stay. A tokenizer may take its last one back: half of a character is written as �."""
    if after.startswith(before):
        return len(before)
    pairs = enumerate(zip(before, after, strict=False))
    return next((place for place, (old, new) in pairs if old != new), len(after))


# ----- small things -----


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _one_line(error: Exception) -> str:
    """A `CourseError` is a sentence already; others are named."""
    line = (str(error).splitlines() or [""])[0]
    return line if isinstance(error, CourseError) else f"{type(error).__name__}: {line}"
