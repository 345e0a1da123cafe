"""What the widgets share: their scripts, and the page that shows one with no kernel and no network."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
STYLE = _HERE / "elevator.css"

# Each widget is one module: these files one after another. The last of them gives `render`.
_PICTURE = ("base", "view", "rides", "scene", "gantt", "charts", "words")
SCRIPTS = {
    "elevator": (*_PICTURE, "elevator"),
    "live": (*_PICTURE, "live"),
    "film": ("base", "view", "film"),
}


def script(widget: str) -> str:
    """The module of one of `SCRIPTS`."""
    return "\n".join((_HERE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS[widget])


def to_json(state: Any) -> str:
    """What a widget's model holds as JSON, bytes in base64 as {"$bytes": …}; fit for a script element."""

    def packed(value: Any) -> Any:
        if isinstance(value, bytes):
            return {"$bytes": base64.b64encode(value).decode()}
        raise TypeError(f"{type(value).__name__} in a widget's state")

    # "<" is written as an escape, so that no text can end the script element.
    return json.dumps(state, default=packed, separators=(",", ":")).replace("<", "\\u003c")


# The other way, and a model without a kernel: what the widget reads and writes, kept in the page.
MODEL = """
const unpacked = (key, value) => (value?.$bytes === undefined ? value
  : new DataView(Uint8Array.from(atob(value.$bytes), (c) => c.charCodeAt(0)).buffer));
const modelOf = (json) => {
  const state = JSON.parse(json, unpacked);
  return {
    get: (name) => state[name],
    set: (name, value) => { state[name] = value; },
    save_changes() {},
    on() {},
    off() {},
  };
};
"""

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
{script}
{model}
const model = modelOf(document.getElementById("state").textContent);
render({{ model, el: document.getElementById("elevator") }});
</script>
</body>
</html>
"""


def page(widget: str, title: str, state: Mapping[str, Any]) -> str:
    """One page that holds a widget's script and all it shows; `state` is what its model would hold."""
    return _PAGE.format(
        title=escape(title or "Elevator"),
        css=STYLE.read_text(encoding="utf-8"),
        script=script(widget),
        model=MODEL,
        state=to_json(state),
    )
