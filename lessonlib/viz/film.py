"""Memory in one piece as a picture that moves: regions come, fill and go, and leave holes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from lessonlib.counting import count
from lessonlib.errors import CourseError
from lessonlib.files import write_whole
from lessonlib.viz import style
from lessonlib.viz.memory import Region, Used, check_regions, memory_strip, used_of
from lessonlib.viz.widget import STYLE, page, script

STATE = ("title", "step", "speed", "playing", "loop", "_film")
MOST_VALUES = 500_000

Want = tuple[int, int, int, str]


class MemoryFilm(anywidget.AnyWidget):
    """Plays what `memory_strip` draws: the memory as it is in one step, a few rows of it one under another.

    Args:
        regions: (step_from, step_to, start, length, label), as in `memory_strip`, in whole steps.
        size: all of the memory, in tokens.
        title: a line above the picture.
        used: how much of each region holds tokens, as in `memory_strip`.
        wants: (step_from, step_to, length, label) of those who wait for a piece, the first in line first.

    Attributes:
        step: 0 … last; follows the reader's steps.
        speed: steps a second.
        playing, loop: what the buttons show.

    Raises:
        CourseError: for no regions, one outside the memory, `used` of another length, or too much to send.
    """

    _esm = script("film")
    _css = STYLE

    title = traitlets.Unicode("").tag(sync=True)
    step = traitlets.Int(0, min=0).tag(sync=True)
    speed = traitlets.Float(10.0, min=0.1).tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    loop = traitlets.Bool(False).tag(sync=True)
    _film: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        regions: Sequence[Region],
        size: int,
        title: str = "",
        *,
        used: Used | None = None,
        wants: Sequence[Want] = (),
        **traits: Any,
    ) -> None:
        check_regions(regions, size)
        values = sum(int(region[1]) - int(region[0]) for region in regions)
        if values > MOST_VALUES:
            raise CourseError(f"{values:,} values, more than are shown ({MOST_VALUES:,}): film fewer steps")
        self._regions, self._size, self._used = list(regions), size, used
        self._last = int(max(region[1] for region in regions))
        film = {
            "size": size,
            "steps": self._last,
            "regions": [_wire(region, used_of(used, place, region)) for place, region in enumerate(regions)],
            "wants": [[int(first), int(end), int(length), str(label)] for first, end, length, label in wants],
        }
        super().__init__(title=title, _film=film, **traits)

    def __repr__(self) -> str:
        pieces, size = count(len(self._regions), "piece"), count(self._size, "token")
        return f"Memory film: {pieces} of {size} over {count(self._last, 'step')}"

    def picture(self) -> style.Picture:
        """All steps in one still picture."""
        return memory_strip(self._regions, self._size, self.title, used=self._used, alt=repr(self))

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        live, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        still, still_metadata = self.picture()._repr_mimebundle_()
        return {**live, **still, "text/plain": repr(self)}, {**metadata, **still_metadata}

    def to_html(self, path: str | Path) -> Path:
        """Write one page that plays with no kernel and no network. Returns its path."""
        state = {name: getattr(self, name) for name in STATE}
        return write_whole(path, page("film", self.title, state))


def _wire(region: Region, tokens: np.ndarray) -> list[Any]:
    first, end, start, length, label = region
    return [int(first), int(end), int(start), int(length), str(label), tokens.astype(int).tolist()]
