"""The elevator: an anywidget that plays Traces, and the controls beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from html import escape
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets
from ipywidgets.widgets.interaction import interactive

from lessonlib.errors import CourseError
from lessonlib.trace import Trace
from lessonlib.viz import keyframes, style
from lessonlib.viz.ride import TABLES, Ride, Traces, named_traces

_HERE = Path(__file__).parent


def script_with(name: str) -> str:
    """Another widget's script after the elevator's, whose clockwork and drawing it uses."""
    shared, own = ((_HERE / file).read_text(encoding="utf-8") for file in ("elevator.js", name))
    return shared.rpartition("\nfunction render(")[0] + "\n" + own


class Elevator(anywidget.AnyWidget):
    """Plays one Trace, or up to a few side by side on one clock.

    A Trace goes to the browser once, packed; from then on the browser works out every frame by itself. To
    show another ride, assign `traces`: the same picture goes on with it.

    Args:
        traces: a Trace, a list of them, or a dict of name -> Trace.
        title: a line above the picture.

    Attributes:
        step: place on the clock, 0 … last; follows the reader's steps a moment after they rest.
        speed: steps a second; 0: the whole ride in about 20 seconds.
        playing, loop: what the buttons show.
    """

    _esm = _HERE / "elevator.js"
    _css = _HERE / "elevator.css"

    title = traitlets.Unicode("").tag(sync=True)
    step = traitlets.Int(0, min=0).tag(sync=True)
    speed = traitlets.Float(0.0, min=0.0).tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    loop = traitlets.Bool(False).tag(sync=True)
    _rides: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)

    def __init__(self, traces: Traces, title: str = "", **traits: Any) -> None:
        self._take(traces)
        super().__init__(title=title, _rides=self._wires(), **traits)

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
            self._rides = self._wires()

    def show(self, traces: Traces) -> None:
        """Swap the ride, as assigning `traces` does."""
        self.traces = traces

    def _take(self, traces: Traces) -> None:
        named = named_traces(traces)
        self._packed = [Ride.from_trace(trace, name) for name, trace in named.items()]
        self._traces = named

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
        path = Path(path)
        esm = (_HERE / "elevator.js").read_text(encoding="utf-8")
        path.write_text(page(self.title, self._state(), esm), encoding="utf-8")
        return path

    def _state(self) -> dict[str, Any]:
        rides = self._wires()
        for wire in rides:
            for key in (*TABLES, "times"):
                wire[key] = base64.b64encode(wire[key]).decode()
        state = {name: getattr(self, name) for name in ("title", "step", "speed", "playing", "loop")}
        return {**state, "packed": [*TABLES, "times"], "_rides": rides}


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 16px auto; max-width: 1000px; padding: 0 12px; background: light-dark(#ffffff, #111418); }}
{css}
</style>
</head>
<body>
<main id="elevator"></main>
<script type="application/json" id="state">{state}</script>
<script type="module">
{esm}
{boot}
</script>
</body>
</html>
"""

# A model without a kernel: what the widget reads and writes, kept in the page.
_BOOT = """
const state = JSON.parse(document.getElementById("state").textContent);
const unpack = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
for (const ride of state._rides) {
  for (const name of state.packed) ride[name] = unpack(ride[name]);
}
const model = {
  get: (name) => state[name],
  set: (name, value) => { state[name] = value; },
  save_changes: () => {},
  on: () => {},
  off: () => {},
};
render({ model, el: document.getElementById("elevator") });
"""


def page(title: str, state: Mapping[str, Any], esm: str) -> str:
    """One page that holds a widget's script and all it shows; `state` is what its model would hold."""
    css = (_HERE / "elevator.css").read_text(encoding="utf-8")
    # "<" is written as an escape, so that no label can end the script element.
    data = json.dumps(state).replace("<", "\\u003c")
    return _PAGE.format(title=escape(title or "Elevator"), css=css, esm=esm, boot=_BOOT, state=data)


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
