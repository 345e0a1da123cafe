"""A gain taken apart, as a picture: each bar runs from the rate of one contender to that of the next."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from lessonlib.counting import count
from lessonlib.split import Part
from lessonlib.viz import style


def waterfall(parts: Sequence[Part], title: str, *, source: str, alt: str = "") -> style.Picture:
    """The chain from its first contender to its last.

    The axis is logarithmic, so that equal factors are equally long and the bars add up to the whole. Beside each
    bar stands its factor, and the two that it is made of.
    """
    with style.applied():
        words = alt or f"Waterfall of tok/s: {', '.join(part.contender for part in parts)}"
        figure = style.picture(1.1 + 0.5 * len(parts), words)
        draw(figure.add_subplot(), parts)
        return style.finish(figure, title, source)


def draw(axes: Axes, parts: Sequence[Part]) -> None:
    """The same on axes that are there."""
    for place, part in enumerate(parts):
        before = parts[place - 1].rate if place else part.rate
        _draw_part(axes, -place, before, part, is_first=place == 0)
    _label_axes(axes, parts)


def _draw_part(axes: Axes, place: float, before: float, part: Part, is_first: bool) -> None:
    low, high = sorted((before, part.rate))
    color = style.DECODE if part.rate >= before else style.PREEMPTED
    if not is_first:
        axes.barh(place, high - low, 0.55, left=low, color=color)
        axes.plot((before, before), (place + 1, place), color=style.INK, linewidth=0.8)
    axes.plot(part.rate, place, marker="o", markersize=5, color=style.INK)
    factors = (
        f"× {part.speed:.2f} = × {part.fewer_steps:.2f} fewer steps · × {part.quicker_steps:.2f} quicker"
    )
    made_of = f"{count(part.steps, 'step')} × {1e3 * part.seconds_per_step:.1f} ms"
    axes.annotate(
        made_of if is_first else f"{factors}\n{made_of}",
        (high, place),
        (7, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
    )


def _label_axes(axes: Axes, parts: Sequence[Part]) -> None:
    rates = [part.rate for part in parts]
    axes.set_yticks([-place for place in range(len(parts))], [part.contender for part in parts])
    axes.set(xscale="log", xlabel="tok/s, logarithmic", xlim=(0.85 * min(rates), _room(rates)))
    axes.xaxis.set_major_formatter(style.thousands)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _room(rates: Sequence[float]) -> float:
    """Where the axis ends, so that the words beside the longest bar have their place."""
    spread = max(rates) / min(rates)
    return max(rates) * max(spread, 2.0) ** 1.3
