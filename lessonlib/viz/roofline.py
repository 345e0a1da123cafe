"""Speeds of kernels: under the roof, rung by rung, and beside their peers. From plain numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes

from lessonlib.viz import style


@dataclass(frozen=True)
class Point:
    """One measured kernel: FLOP per byte that it must move, and FLOP per second that it reached.

    Attributes:
        kind: "decode" or "prefill" (their colors), or "peer" (ink).
        hollow: drawn as an outline, to tell a second batch from the first.
    """

    name: str
    flop_per_byte: float
    flop_per_second: float
    kind: str = "decode"
    hollow: bool = False


_COLORS = {"decode": style.DECODE, "prefill": style.PREFILL, "peer": style.INK}
_MARKS = {"decode": "o", "prefill": "s", "peer": "D"}
_NAME_HEIGHT = 0.035  # of the roofline's axes, from one name to the next in one column


def roofline(
    points: Sequence[Point],
    *,
    peak: float,
    bandwidth: float,
    title: str,
    source: str = "",
    alt: str = "",
) -> style.Picture:
    """Measured kernels under a machine's roof (Williams et al. 2009), both axes logarithmic.

    Args:
        peak: FLOP per second of the arithmetic units.
        bandwidth: bytes per second of the memory.
    """
    with style.applied():
        figure = style.picture(4.6, alt or f"Roofline with {', '.join(point.name for point in points)}")
        axes = figure.add_subplot()
        right = 30 * max(max(point.flop_per_byte for point in points), peak / bandwidth)
        x = np.array([0.4, peak / bandwidth, right])
        axes.plot(x, np.minimum(peak, x * bandwidth), color=style.INK, linewidth=2)
        low, high = min(point.flop_per_second for point in points) / 4, peak * 4
        for point, height in zip(points, name_heights(points, np.log(high / low)), strict=True):
            _draw_point(axes, point, height)
        axes.set(xscale="log", yscale="log", xlim=(x[0], right), xlabel="FLOP for each byte that must move")
        axes.set_ylabel("FLOP/s reached")
        axes.yaxis.set_major_formatter(_flops)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
        axes.set_ylim(low, high)
        _label_roof(axes, peak, bandwidth)
        style.quiet_grid(axes, "both")
        return style.finish(figure, title, source)


def name_heights(points: Sequence[Point], span: float) -> list[float]:
    """The FLOP/s at which each point's name is written, so that no two in one column overlap.

    The highest of names that are too close stays at its point, below the roof, and the others move down.

    Args:
        span: natural logarithm of the axis's upper end over its lower.
    """
    heights = [0.0] * len(points)
    for column in {round(np.log(point.flop_per_byte), 1) for point in points}:
        mine = [i for i, point in enumerate(points) if round(np.log(point.flop_per_byte), 1) == column]
        mine.sort(key=lambda i: points[i].flop_per_second)
        groups = [[np.log(points[i].flop_per_second)] for i in mine]
        while (at := _first_overlap(groups, gap := _NAME_HEIGHT * span)) is not None:
            groups[at : at + 2] = [_spread([*groups[at], *groups[at + 1]], gap)]
        for i, height in zip(mine, (height for group in groups for height in group), strict=True):
            heights[i] = float(np.exp(height))
    return heights


def _first_overlap(groups: Sequence[Sequence[float]], gap: float) -> int | None:
    pairs = enumerate(pairwise(groups))
    return next((i for i, (below, above) in pairs if above[0] - below[-1] < gap - 1e-9), None)


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """As many heights, `gap` apart, the last of them where it was."""
    return [heights[-1] - gap * below for below in reversed(range(len(heights)))]


def _draw_point(axes: Axes, point: Point, name_height: float) -> None:
    color = _COLORS[point.kind]
    fill = "white" if point.hollow else color
    axes.plot(
        point.flop_per_byte, point.flop_per_second, _MARKS[point.kind], color=color, markerfacecolor=fill,
        markersize=6.5, markeredgewidth=1.3,
    )  # fmt: skip
    axes.annotate(
        point.name,
        (point.flop_per_byte, point.flop_per_second),
        (1.7 * point.flop_per_byte, name_height),
        ha="left",
        va="center",
        fontsize=8,
        color=style.word_color(color),
        arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.7, "relpos": (0, 0.5), "shrinkB": 3},
    )


def _label_roof(axes: Axes, peak: float, bandwidth: float) -> None:
    ridge = peak / bandwidth
    axes.annotate(
        f"arithmetic, {_flops(peak)}FLOP/s", (ridge, peak), (4, 4), textcoords="offset points", fontsize=8.5
    )
    axes.annotate(
        f"memory, {bandwidth / 1e9:,.0f} GB/s",
        (ridge / 14, bandwidth * ridge / 14),
        (-8, 2),
        textcoords="offset points",
        ha="right",
        fontsize=8.5,
    )


def _flops(value: float, _: float = 0) -> str:
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= unit:
            return f"{value / unit:,.0f} {name}"
    return f"{value / 1e3:g} k"


def ladder_bars(
    groups: Mapping[str, Mapping[str, float]],
    ceiling: float,
    title: str,
    *,
    ceiling_label: str,
    highlight: str,
    source: str = "",
    alt: str = "",
) -> style.Picture:
    """GB/s of each rung, a bar each on a logarithmic axis, group by group, and the ceiling as a line.

    Args:
        groups: batch -> rung -> GB/s of keys and values, each counted once.
        highlight: the rung that the others lead to.
    """
    rows = sum(len(rungs) + 1 for rungs in groups.values())
    with style.applied():
        figure = style.picture(0.9 + 0.25 * rows, alt or f"GB/s of each rung for {'; '.join(groups)}")
        axes = figure.add_subplot()
        low = min(min(rungs.values()) for rungs in groups.values()) / 2
        place, ticks, names = 0.0, [], []
        for batch, rungs in groups.items():
            axes.text(low * 1.1, -place, batch, va="center", fontsize=8.5, fontweight="bold")
            for rung, speed in rungs.items():
                place += 1
                color = style.DECODE if rung == highlight else style.INK
                axes.barh(-place, speed - low, 0.78, left=low, color=color)
                is_long = np.log(speed / low) > 0.25 * np.log(ceiling / low)
                text = f"{speed:,.0f} GB/s" if speed >= 10 else f"{speed:.2g} GB/s"
                style.label_bar(axes, text, (speed, -place), is_long, gap=4, fontsize=8)
                ticks.append(-place)
                names.append(rung)
            place += 1.15
        axes.axvline(ceiling, color=style.INK, linewidth=1.4)
        axes.annotate(
            ceiling_label,
            (ceiling, 1),
            (-3, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8.5,
        )
        axes.set(
            xscale="log",
            xlim=(low, ceiling * 1.3),
            ylim=(-place + 0.4, 0.9),
            xlabel="GB/s of keys and values",
        )
        axes.set_yticks(ticks, names)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        return style.finish(figure, title, source)


def beside_peers(
    rows: Mapping[str, Mapping[str, float]],
    title: str,
    *,
    xlabel: str,
    percent: bool = False,
    source: str = "",
    alt: str = "",
) -> style.Picture:
    """One line a batch, one mark a kernel: the course's filled in blue, its peers hollow in ink.

    Args:
        rows: batch -> kernel -> what it reached, the course's first; a kernel that was not measured there is left out.
    """
    kernels = list(dict.fromkeys(kernel for reached in rows.values() for kernel in reached))
    scale = 100 if percent else 1
    marks = ("o", "D", "s", "^")
    with style.applied():
        figure = style.picture(1.1 + 0.27 * len(rows), alt or f"{xlabel} of {', '.join(kernels)}")
        axes = figure.add_subplot()
        for place, (_, reached) in enumerate(rows.items()):
            values = {kernels.index(kernel): scale * value for kernel, value in reached.items()}
            ends = [min(values.values()), max(values.values())]
            axes.plot(ends, [-place, -place], color=style.IDLE, linewidth=1, alpha=0.6)
            for rank, value in reversed(list(values.items())):
                color = style.DECODE if rank == 0 else style.INK
                fill = color if rank == 0 else "none"
                axes.plot(
                    value, -place, marks[rank], color=color, markerfacecolor=fill, markersize=6.5 if rank else 7,
                    markeredgewidth=1.3, zorder=4 - rank,
                )  # fmt: skip
        for rank, kernel in enumerate(kernels):
            color = style.DECODE if rank == 0 else style.INK
            x = rank / len(kernels)
            axes.plot(
                x, 1.06, marks[rank], transform=axes.transAxes, clip_on=False, color=color,
                markerfacecolor=color if rank == 0 else "none", markersize=6.5,
            )  # fmt: skip
            axes.text(
                x + 0.02, 1.06, kernel, transform=axes.transAxes, va="center", fontsize=8.5,
                color=style.word_color(color), fontweight="bold" if rank == 0 else "normal",
            )  # fmt: skip
        axes.set_yticks([-place for place in range(len(rows))], list(rows), fontsize=8)
        axes.set(xlabel=xlabel, xlim=(0, None), ylim=(-len(rows) + 0.4, 0.6))
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        style.quiet_grid(axes, "x")
        return style.finish(figure, title, source)
