"""How every figure looks: colors with one meaning each, one font, a title that states the finding.

Figures have no background of their own; their ink is the gray that reads equally well (4.3 to 1) on white and
on the dark theme's near-black.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import fill
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's palette, one meaning each, here and in elevator.css.
PREFILL = "#E69F00"
DECODE = "#0072B2"
PREEMPTED = "#D55E00"
FINISHED = "#009E73"
SHARED = "#CC79A7"
IDLE = "#8A8F98"
INK = "#777B82"

# The same hues for words: each reads as well on white as on near-black (4.3 to 1).
WORDS = {PREFILL: "#A06F00", DECODE: "#1A7FBF", PREEMPTED: "#C75700", FINISHED: "#008A64"}

IDLE_HATCH = "////"
PREFILL_HATCH = "----"

WIDTH = 6.0  # inches; at DPI 100 a column of 600 px
DPI = 100  # of the page; the PNG has twice as many pixels, for sharp screens
SHARPNESS = 2
TITLE_COLUMNS = 62  # characters of a title that fit a line
SOURCE_COLUMNS = 100  # the same of its source

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so a figure is the same on every machine
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "hatch.linewidth": 0.7,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "svg.hashsalt": "course",
}


class Picture(Figure):
    """A matplotlib Figure that shows itself as a PNG with the same bytes every time, and as its alt text.

    Attributes:
        alt: what the picture shows, in words, for those who do not see it. It is stored in notebooks, so it
            holds no figure that varies from run to run.
    """

    alt: str = ""

    def png(self) -> bytes:
        """The picture, twice as many pixels as it takes on the page; no software version inside."""
        buffer = io.BytesIO()
        with applied():
            self.savefig(buffer, format="png", dpi=DPI * SHARPNESS, metadata={"Software": None})
        self.set_layout_engine("none")  # a second pass of the layout would move things by a hair
        return buffer.getvalue()

    def __repr__(self) -> str:
        return f"Picture({self.alt})"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        width, height = (round(float(side) * DPI) for side in self.get_size_inches())
        data = {"text/plain": repr(self), "image/png": base64.b64encode(self.png()).decode()}
        return data, {"image/png": {"width": width, "height": height}}


def picture(height: float, alt: str, width: float = WIDTH) -> Picture:
    """An empty figure of the course, in inches. Draw on it within `style.applied()`."""
    figure = Picture(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.alt = alt
    return figure


@contextmanager
def applied() -> Iterator[None]:
    """Matplotlib's defaults and the course's on top, whatever the notebook has set; its own are restored."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)  # type: ignore[arg-type]
        yield


def finish(figure: Picture, title: str, source: str = "") -> Picture:
    """Write the finding above the figure and, small, its source below."""
    figure.suptitle(fill(title, TITLE_COLUMNS), x=0.01, ha="left", fontsize=11, fontweight="bold")
    if source:
        figure.supxlabel(small_print(source), x=0.01, ha="left", fontsize=7.5)
    return figure


def small_print(words: str) -> str:
    """Each line of it broken to fit below a figure, names and options whole."""
    return "\n".join(
        fill(line, SOURCE_COLUMNS, break_on_hyphens=False, break_long_words=False)
        for line in words.splitlines()
    )


def word_color(color: str) -> str:
    """The color for words about what is drawn in `color`."""
    return WORDS.get(color, INK)


def quiet_grid(axes: Axes, axis: str = "y") -> None:
    """Faint lines behind the data, along one axis."""
    axes.set_axisbelow(True)
    axes.grid(axis=axis)  # type: ignore[arg-type]


def label_bar(
    axes: Axes, text: str, end: tuple[float, float], is_long: bool, gap: float, **look: Any
) -> None:
    """Write a horizontal bar's value, bold: inside its `end` where the bar is long, else `gap` points beyond it."""
    axes.annotate(
        text,
        end,
        (-gap if is_long else gap, 0),
        textcoords="offset points",
        ha="right" if is_long else "left",
        va="center",
        color="white" if is_long else INK,
        fontweight="bold",
        **look,
    )


def thousands(value: float, _: float = 0) -> str:
    """A tick: 12,345 or 0.5. The second argument is the tick's place, which matplotlib gives."""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:g}"


def number(value: float) -> str:
    """Three or four digits, however large: 0.123, 12.3, 1,234."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
