"""The elevator: an anywidget that plays Traces, and the controls beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets
from ipywidgets.widgets.interaction import interactive

from lessonlib.errors import CourseError
from lessonlib.files import write_whole
from lessonlib.trace import Trace
from lessonlib.trace_schema import SCHEMA_VERSION
from lessonlib.viz import keyframes, movie, style
from lessonlib.viz.ride import Ride, Traces, named_traces
from lessonlib.viz.widget import STYLE, page, script

# What the browser needs to play a ride by itself.
STATE = ("title", "step", "speed", "playing", "loop", "_note", "_rides")


class Elevator(anywidget.AnyWidget):
    """Plays one Trace, or up to a few side by side on one clock.

    A Trace goes to the browser once, packed; from then on the browser works out every frame by itself. To
    show another ride, assign `traces`: the same picture goes on with it.

    Args:
        traces: a Trace, a list of them, or a dict of name -> Trace.
        title: a line above the picture.
        prompts: what each request asks, in place of the Trace's labels; shown beside its rider.
        texts: what each request was answered; shown as it is written.

    Attributes:
        step: place on the clock, 0 … last; follows the reader's steps a moment after they rest.
        speed: steps a second; 0: the whole ride in about 20 seconds.
        playing, loop: what the buttons show.
    """

    _esm = script("elevator")
    _css = STYLE

    title = traitlets.Unicode("").tag(sync=True)
    step = traitlets.Int(0, min=0).tag(sync=True)
    speed = traitlets.Float(0.0, min=0.0).tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    loop = traitlets.Bool(False).tag(sync=True)
    _note = traitlets.Unicode("").tag(sync=True)
    _rides: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)

    def __init__(
        self,
        traces: Traces,
        title: str = "",
        *,
        prompts: Sequence[str] = (),
        texts: Sequence[str] = (),
        **traits: Any,
    ) -> None:
        self._prompts, self._texts = prompts, texts
        self._take(traces)
        super().__init__(title=title, _rides=self._wires(), _note=self._remark(), **traits)

    @property
    def traces(self) -> dict[str, Trace]:
        """Name -> Trace. Assigning swaps the ride: one message, back at the first step.

        Raises `CourseError` for what is no Trace, and then shows what it showed before.
        """
        return dict(self._traces)

    @traces.setter
    def traces(self, traces: Traces) -> None:
        self._take(traces)
        with self.hold_sync():
            self.step = 0
            self._note = self._remark()
            self._rides = self._wires()

    def show(self, traces: Traces) -> None:
        """Swap the ride, as assigning `traces` does."""
        self.traces = traces

    def _take(self, traces: Traces) -> None:
        named = named_traces(traces)
        self._packed = [
            Ride.from_trace(trace, name).with_words(self._prompts, self._texts)
            for name, trace in named.items()
        ]
        self._traces = named

    def _remark(self) -> str:
        """What the reader should know about the Traces before looking, else nothing."""
        newest = max(trace.header.schema for trace in self._traces.values())
        if newest <= SCHEMA_VERSION:
            return ""
        return (
            f"A Trace of schema {newest}, newer than the {SCHEMA_VERSION} that this lessonlib reads: what it knows is "
            "drawn, the rest is left out. Update the course to see all of it."
        )

    def _wires(self) -> list[dict[str, Any]]:
        return [ride.to_wire() for ride in self._packed]

    # ----- where nothing moves -----

    def __repr__(self) -> str:
        return keyframes.summary(self._packed)

    def picture(self) -> style.Picture:
        """The key frames as a figure: each car at a few moments over the slots' timelines."""
        return keyframes.strip(self._packed, self.title)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        live, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        still, still_metadata = self.picture()._repr_mimebundle_()
        return {**live, **still, "text/plain": repr(self)}, {**metadata, **still_metadata}

    def to_html(self, path: str | Path) -> Path:
        """Write one page that plays with no kernel and no network. Returns its path."""
        state = {name: getattr(self, name) for name in STATE}
        return write_whole(path, page("elevator", self.title, state))

    def to_gif(self, path: str | Path, seconds: float = 10.0, fps: float = 10.0) -> Path:
        """Film the whole ride as a GIF for slides, with a progress bar. Returns its path.

        Raises `CourseError` for a ride with no steps, a length or rate that is none, or too many frames.
        """
        return movie.write_gif(self._packed, self.title, Path(path), seconds, fps)

    def to_mp4(self, path: str | Path, seconds: float = 20.0, fps: float = 20.0) -> Path:
        """Film the whole ride as an MP4, as `to_gif` does."""
        return movie.write_mp4(self._packed, self.title, Path(path), seconds, fps)


# ----- controls -----


class Explorer(ipywidgets.VBox):
    """Sliders and dropdowns over one Elevator; each change runs `simulate` and hands over the new ride.

    Attributes:
        elevator: the Elevator, the same one throughout.
        controls: the input widgets by name.
        message: a Label: what was wrong with the last values, else empty.
    """

    def __init__(
        self,
        simulate: Callable[..., Traces],
        controls: Mapping[str, ipywidgets.Widget],
        title: str = "",
    ) -> None:
        self.simulate, self.controls = simulate, dict(controls)
        self.message = ipywidgets.Label("")
        self.elevator = Elevator(simulate(**self.values), title)
        for widget in self.controls.values():
            widget.observe(self._rerun, "value")
        row = ipywidgets.HBox(list(self.controls.values()), layout=ipywidgets.Layout(flex_flow="row wrap"))
        super().__init__([row, self.message, self.elevator])

    @property
    def values(self) -> dict[str, Any]:
        """What the controls say now."""
        return {name: widget.value for name, widget in self.controls.items()}

    def _rerun(self, _: Any) -> None:
        try:
            self.elevator.traces = self.simulate(**self.values)
        except CourseError as error:
            self.message.value = str(error)
        else:
            self.message.value = ""

    def __repr__(self) -> str:
        shown = {
            name: f"{value:g}" if isinstance(value, float) else value for name, value in self.values.items()
        }
        chosen = ", ".join(f"{name}={value}" for name, value in shown.items())
        return f"{self.elevator!r}\n  with {chosen}"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        live = super()._repr_mimebundle_(**kwargs) or {}
        still, metadata = self.elevator.picture()._repr_mimebundle_()
        return {**live, **still, "text/plain": repr(self)}, metadata


def explorer(simulate: Callable[..., Traces], title: str = "", **widgets: Any) -> Explorer:
    """Controls beside one Elevator.

    Args:
        simulate: called as `simulate(**values)` at once and after each change; gives what an Elevator
            takes. A `CourseError` becomes one line under the controls and the last good ride stays.
        title: a line above the elevator.
        **widgets: a name -> an ipywidgets input, or a short form as in `ipywidgets.interact`: (1, 16) is a
            slider, ["static", "continuous"] a dropdown, {"label": value} a dropdown, True a checkbox. A short
            form starts at `simulate`'s own default for that name, where it has one.

    Raises `CourseError` for a short form that is none, and whatever `simulate` raises for the first values.
    """
    controls = {}
    defaults = signature(simulate).parameters
    for name, given in widgets.items():
        default = defaults[name].default if name in defaults else Parameter.empty
        widget = (
            given if isinstance(given, ipywidgets.Widget) else interactive.widget_from_abbrev(given, default)
        )
        if widget is None:
            raise CourseError(
                f"{name}={given!r} is no control: give a widget, a (low, high) pair or a list of choices"
            )
        widget.description = widget.description or name
        controls[name] = widget
    return Explorer(simulate, controls, title)
