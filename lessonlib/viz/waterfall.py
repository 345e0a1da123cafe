"""A gain taken apart, as a picture: each bar runs from the rate of one contender to that of the next."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from lessonlib.counting import count
from lessonlib.split import Part, factor, span, two_digits
from lessonlib.viz import style


def waterfall(parts: Sequence[Part], title: str, *, source: str, alt: str = "") -> style.Picture:
    """The chain from its first contender to its last.

    The axis is logarithmic, so that equal factors are equally long and the bars add up to the whole. A whisker spans
    the slowest and the fastest run. Beside each bar stands its factor and the two that it is made of; a link whose
    runs overlap with those of the one before is hollow, and says that it is a draw.
    """
    with style.applied():
        words = alt or f"Waterfall of tok/s: {', '.join(part.contender for part in parts)}"
        figure = style.picture(1.1 + 0.5 * len(parts), words)
        draw(figure.add_subplot(), parts)
        return style.finish(figure, title, source)


def draw(axes: Axes, parts: Sequence[Part]) -> None:
    """The same on axes that are there."""
    for row, part in enumerate(parts):
        before = parts[row - 1].rate if row else part.rate
        _draw_part(axes, -row, before, part, is_first=row == 0)
    _label_axes(axes, parts)


def _draw_part(axes: Axes, y: float, before: float, part: Part, is_first: bool) -> None:
    low, high = sorted((before, part.rate))
    color = style.DECODE if part.rate >= before else style.PREEMPTED
    if not is_first:
        filled = "none" if part.is_draw else color
        axes.barh(y, high - low, 0.55, left=low, facecolor=filled, edgecolor=color)
        axes.plot((before, before), (y + 1, y), color=style.INK, linewidth=0.8)
    axes.plot(part.rates, (y, y), color=style.INK, linewidth=1.2, marker="|", markersize=7)
    axes.plot(part.rate, y, marker="o", markersize=5, color=style.INK)
    made_of = f"{count(part.steps, 'step')} × {1e3 * part.seconds_per_step:.1f} ms"
    axes.annotate(
        made_of if is_first else f"{_gain(part)}\n{made_of}",
        (max(high, *part.rates), y),
        (7, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
    )


def _gain(part: Part) -> str:
    if part.is_draw:
        return f"a draw ({factor(*part.speeds)})"
    gain, runs = two_digits(part.speed), span(*part.speeds)
    steps = f" · × {part.fewer_steps:.2f} by fewer steps" if part.fewer_steps > 1 else ""
    return f"× {gain}{steps}" if gain == runs else f"× {gain} ({runs}){steps}"


def _label_axes(axes: Axes, parts: Sequence[Part]) -> None:
    rates = [part.rate for part in parts]
    axes.set_yticks([-row for row in range(len(parts))], [part.contender for part in parts])
    axes.set(xscale="log", xlabel="tok/s, logarithmic", xlim=(0.85 * min(rates), _room(rates)))
    axes.xaxis.set_major_formatter(style.thousands)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _room(rates: Sequence[float]) -> float:
    """Where the axis ends, so that the words beside the longest bar have their place."""
    spread = max(rates) / min(rates)
    return max(rates) * 1.1 * max(spread, 3.0)
