"""Every plot of the notebooks, from Traces or plain arrays; those about memory are in `memory`.

The caller computes the finding and passes it as the title; `source` names where the data is from; `alt` says
it in words for those who do not see it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from lessonlib.counting import count
from lessonlib.errors import CourseError
from lessonlib.metrics import PERCENTILES
from lessonlib.trace import Kind, Trace
from lessonlib.viz import style
from lessonlib.viz.gantt import draw_gantt, gantt_height, tidy_gantt_axis
from lessonlib.viz.memory import gaps as gaps
from lessonlib.viz.memory import memory_shares_bars as memory_shares_bars
from lessonlib.viz.memory import memory_strip as memory_strip
from lessonlib.viz.memory import policies_chart as policies_chart
from lessonlib.viz.ride import Traces, named_traces, pack

LINE_OF_TEXT = 14  # pixels

# Policies have no color of their own: the one that keeps slots busy wears decode's, all others are ink.
_FAST: dict[str, Any] = {"color": style.DECODE, "linestyle": "-", "linewidth": 2.0}
_OTHERS: tuple[dict[str, Any], ...] = (
    {"color": style.INK, "linestyle": (0, (5, 2))},
    {"color": style.INK, "linestyle": ":"},
    {"color": style.INK},
)


def line_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How each line looks: what is called continuous (else the last) solid blue, others gray and broken."""
    fast = [name for name in names if "continuous" in name] or names[-1:]
    others = cycle(_OTHERS)
    return {name: dict(_FAST) if name in fast else {"linewidth": 1.6, **next(others)} for name in names}


def gantt(traces: Traces, title: str, *, source: str = "", alt: str = "") -> style.Picture:
    """Timelines of slots, one over the other on one clock: decode filled, prefill striped, idle hatched."""
    rides = pack(traces)
    names = " over ".join(ride.name for ride in rides)
    with style.applied():
        figure = style.picture(
            0.5 + gantt_height(rides), alt or f"Timelines of {count(rides[0].slots, 'slot')}: {names}"
        )
        axes = figure.add_subplot()
        draw_gantt(axes, rides)
        tidy_gantt_axis(axes, rides)
        _explain_gantt(axes, any((ride.spans[1] == Kind.PREFILL).any() for ride in rides))
        return style.finish(figure, title, source)


def _explain_gantt(axes: Axes, with_prefill: bool) -> None:
    """What the colors mean, written in them above the top lane's right end."""
    words = [("idle", style.INK), ("finished", style.FINISHED), ("decode", style.DECODE)]
    if with_prefill:
        words.append(("prefill", style.PREFILL))
    for place, (word, color) in enumerate(words):
        axes.annotate(
            word,
            (1, 1),
            (-52 * place, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="top",
            color=style.word_color(color),
            fontsize=8.5,
        )


def utilization_over_time(
    traces: Traces, title: str, *, window: int | None = None, source: str = "", alt: str = ""
) -> style.Picture:
    """Share of slots that give a token, a line a Trace, each the mean of the last `window` steps."""
    named = named_traces(traces)
    longest = max(trace.num_steps for trace in named.values())
    window = window or max(1, longest // 100)
    with style.applied():
        figure = style.picture(2.7, alt or f"Utilization over time: {', '.join(named)}")
        axes = figure.add_subplot()
        looks = line_styles(list(named))
        for name, trace in named.items():
            share = _smooth(tokens_per_step(trace) / trace.header.slots, window)
            axes.plot(
                100 * share,
                **{**looks[name], "linestyle": "-", "linewidth": 2.2 if looks[name] == _FAST else 0.9},
            )
            axes.axhline(100 * trace.utilization, color=looks[name]["color"], alpha=0.35, linewidth=1)
        _label_lines(
            axes,
            {name: f"{name}: {trace.utilization:.1%} over the ride" for name, trace in named.items()},
            looks,
        )
        axes.set(xlabel="step", ylabel="slots in use, %", ylim=(0, 104), xlim=(0, max(1, longest)))
        axes.xaxis.set_major_formatter(style.thousands)
        style.quiet_grid(axes)
        return style.finish(figure, title, source)


def tokens_per_step(trace: Trace) -> np.ndarray:
    """Output tokens given in each step, int64 `[num_steps]`."""
    rows = trace.rows(Kind.DECODE)
    change = np.zeros(trace.num_steps + 1, np.int64)
    np.add.at(change, rows["step"], 1)
    np.add.at(change, rows["step"] + rows["tokens"], -1)
    return np.cumsum(change)[:-1]


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over the last `window` values, fewer at the start."""
    sums = np.cumsum(values)
    held = np.concatenate([np.zeros(window), sums])[: len(sums)]
    return (sums - held) / np.minimum(np.arange(len(sums)) + 1, window)


IDLE_BAR: dict[str, Any] = {
    "facecolor": style.IDLE + "20",
    "edgecolor": style.IDLE + "80",
    "hatch": style.IDLE_HATCH,
}
IN_BAR: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "color": "white", "fontsize": 8}


def throughput_bars(
    rates: Mapping[str, Mapping[str, float]],
    ceiling: float,
    title: str,
    *,
    unit: str = "tok/s",
    ceiling_label: str = "every slot busy",
    source: str = "",
    alt: str = "",
) -> style.Picture:
    """Tokens per second by policy for each length distribution, the room up to the ceiling hatched as idle.

    Args:
        rates: distribution -> policy -> rate; every distribution has the same policies.
        ceiling: the rate with every slot busy, drawn as a line.
    """
    policies = _same_keys(rates, "distribution")
    bar = 0.8 / len(policies)
    with style.applied():
        figure = style.picture(3.2, alt or f"Bars: {unit} under {', '.join(policies)} for {', '.join(rates)}")
        axes = figure.add_subplot()
        looks = line_styles(policies)
        for index, policy in enumerate(policies):
            at = np.arange(len(rates)) + (index - (len(policies) - 1) / 2) * bar
            height = np.array([rates[name][policy] for name in rates])
            axes.bar(at, height, bar * 0.92, color=looks[policy]["color"])
            idle = np.maximum(0, ceiling - height)
            axes.bar(at, idle, bar * 0.92, bottom=height, linewidth=0, **IDLE_BAR)
            rotation = 90 if len(policies) * len(rates) > 6 else 0
            axes.annotate(policy, (at[0], 0), (0, 5), va="bottom", rotation=rotation, **IN_BAR)
            for x, rate in zip(at, height, strict=True):
                axes.annotate(f"{rate:,.0f}", (x, rate), (0, -3), va="top", fontweight="bold", **IN_BAR)
        axes.axhline(ceiling, color=style.INK, linewidth=1.2)
        axes.annotate(
            f"{ceiling_label}: {ceiling:,.0f} {unit}",
            (1, ceiling),
            (0, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=8.5,
        )
        axes.set(ylabel=unit, ylim=(0, ceiling * 1.13), xlim=(-0.5, len(rates) - 0.5))
        axes.set_xticks(range(len(rates)), [name.replace(" ", "\n", 1) for name in rates])
        axes.tick_params(axis="x", length=0)
        axes.yaxis.set_major_formatter(style.thousands)
        return style.finish(figure, title, source)


def _same_keys(table: Mapping[str, Mapping[str, float]], what: str) -> list[str]:
    keys = [list(row) for row in table.values()]
    if not keys or any(row != keys[0] for row in keys):
        raise CourseError(f"nothing to draw: give every {what} the same policies, at least one")
    return keys[0]


def length_histogram(
    lengths: np.ndarray | Mapping[str, np.ndarray],
    title: str,
    *,
    marks: Mapping[str, float] | None = None,
    bins: int = 40,
    xlabel: str = "output tokens",
    source: str = "",
    alt: str = "",
) -> style.Picture:
    """How long the rides are: one panel a distribution on a shared axis, with labelled lines at `marks`."""
    panels = lengths if isinstance(lengths, Mapping) else {"": lengths}
    longest = max(int(np.max(values)) for values in panels.values())
    edges = np.linspace(0, longest, bins + 1)
    with style.applied():
        figure = style.picture(0.9 + 1.5 * len(panels), alt or f"Histogram of {xlabel}")
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, values) in zip(grid, panels.items(), strict=True):
            axes.hist(values, edges, color=style.DECODE, weights=np.full(len(values), 100 / len(values)))
            axes.set(ylabel="requests, %", xlim=(0, longest))
            axes.annotate(name, (1, 1), xycoords="axes fraction", ha="right", va="top", fontweight="bold")
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.yaxis.set_major_formatter(style.thousands)
            for place, (word, at) in enumerate((marks or {}).items()):
                axes.axvline(at, color=style.INK, linewidth=1.2, linestyle=(0, (4, 2)))
                axes.annotate(
                    f" {word}: {at:,.0f}",
                    (at, 0.97 - 0.12 * place),
                    xycoords=("data", "axes fraction"),
                    va="top",
                    fontsize=8.5,
                    ha="left" if at < 0.7 * longest else "right",
                )
        grid[-1].set_xlabel(xlabel)
        grid[-1].xaxis.set_major_formatter(style.thousands)
        return style.finish(figure, title, source)


def cost_curve(
    utilization: np.ndarray,
    dollars: np.ndarray,
    points: Mapping[str, tuple[float, float]],
    title: str,
    *,
    source: str = "",
    alt: str = "",
) -> style.Picture:
    """Dollars per million tokens against utilization (0 … 1), with labelled points (utilization, dollars)."""
    with style.applied():
        figure = style.picture(3.0, alt or "Dollars per million output tokens against utilization")
        axes = figure.add_subplot()
        axes.plot(100 * np.asarray(utilization), dollars, color=style.INK, linewidth=1.6)
        for word, (share, price) in points.items():
            axes.plot(100 * share, price, "o", color=style.DECODE, markersize=7)
            # The curve falls: above right of a point is free, and below left.
            above = share < 0.7
            axes.annotate(
                f"{word}\n{share:.1%}, ${price:,.2f}",
                (100 * share, price),
                (6, 6) if above else (2, 10),
                textcoords="offset points",
                fontsize=8.5,
                color=style.word_color(style.DECODE),
                ha="left" if above else "right",
                va="bottom",
            )
        axes.set(xlabel="utilization, %", ylabel="$ per million tokens", xlim=(0, 103), ylim=(0, None))
        axes.yaxis.set_major_formatter(
            lambda value, _: f"${value:,.0f}" if value == int(value) else f"${value:,.2f}"
        )
        style.quiet_grid(axes)
        return style.finish(figure, title, source)


def tail_latency(
    samples: Mapping[str, np.ndarray], title: str, *, unit: str = "steps", source: str = "", alt: str = ""
) -> style.Picture:
    """Median, 90th and 99th percentile of each group of times, a row each, on one logarithmic axis."""
    if not samples or any(not len(values) for values in samples.values()):
        raise CourseError("nothing to draw: give every group at least one time")
    with style.applied():
        figure = style.picture(
            0.95 + 0.45 * len(samples), alt or f"Percentiles of latency: {', '.join(samples)}"
        )
        axes = figure.add_subplot()
        looks = line_styles(list(samples))
        for place, (name, values) in enumerate(samples.items()):
            _draw_percentiles(axes, -place, np.percentile(values, PERCENTILES), looks[name]["color"])
        axes.set_yticks([-place for place in range(len(samples))], list(samples))
        axes.set(xscale="log", xlabel=f"latency, {unit}", ylim=(-len(samples) + 0.4, 0.75))
        axes.margins(x=0.22)
        axes.xaxis.set_major_formatter(style.thousands)
        axes.xaxis.set_minor_formatter("")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        style.quiet_grid(axes, "x")
        return style.finish(figure, title, source)


def _draw_percentiles(axes: Axes, y: float, marks: np.ndarray, color: str) -> None:
    """Three marks on a line; the words of the outer two stand outside, clear of the middle one."""
    axes.plot([marks[0], marks[-1]], [y, y], color=color, linewidth=1.4)
    places = (("o", (-7, 0), "right"), ("s", (0, 9), "center"), ("D", (8, 0), "left"))
    for value, percentile, (shape, offset, side) in zip(marks, PERCENTILES, places, strict=True):
        axes.plot(value, y, shape, color=color, markersize=6)
        words = f"p{percentile} {style.number(value)}"
        axes.annotate(
            words,
            (value, y),
            offset,
            textcoords="offset points",
            ha=side,
            va="center",
            fontsize=8,
            color=style.word_color(color),
        )


def curves(
    x: Sequence[float] | np.ndarray,
    lines: Mapping[str, Sequence[float]],
    title: str,
    *,
    xlabel: str,
    ylabel: str,
    log_x: bool = False,
    log_y: bool = False,
    percent: bool = False,
    source: str = "",
    alt: str = "",
) -> style.Picture:
    """One labelled line a series over a shared x; shares (0 … 1) as percentages with `percent`."""
    with style.applied():
        figure = style.picture(2.9, alt or f"{ylabel} against {xlabel}: {', '.join(lines)}")
        axes = figure.add_subplot()
        looks = line_styles(list(lines))
        scale = 100 if percent else 1
        for name, values in lines.items():
            axes.plot(x, scale * np.asarray(values), marker="o", markersize=3.5, **looks[name])
        axes.set(xlabel=xlabel, ylabel=f"{ylabel}, %" if percent else ylabel)
        if log_x:
            axes.set_xscale("log")
            axes.set_xticks(list(x), [style.thousands(value) for value in x])
            axes.xaxis.set_minor_locator(NullLocator())
        if log_y:
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, 104 if percent else None)
        _label_beside_ends(axes, {name: scale * values[-1] for name, values in lines.items()}, x[-1], looks)
        axes.yaxis.set_major_formatter(style.thousands)
        style.quiet_grid(axes)
        return style.finish(figure, title, source)


def measured_bars(
    values: Mapping[str, float], title: str, *, unit: str, source: str, alt: str = ""
) -> style.Picture:
    """One bar a name, its measured value written on it, or beside it where the bar is short."""
    with style.applied():
        figure = style.picture(0.7 + 0.42 * len(values), alt or f"Bars: {unit} of {', '.join(values)}")
        axes = figure.add_subplot()
        looks = line_styles(list(values))
        most = max(values.values())
        for row, (name, value) in enumerate(values.items()):
            axes.barh(-row, value, 0.7, color=looks[name]["color"])
            style.label_bar(axes, f"{value:,.0f} {unit}", (value, -row), value >= 0.25 * most, gap=5)
        axes.set_yticks([-row for row in range(len(values))], list(values))
        axes.set_xlabel(unit)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter(style.thousands)
        return style.finish(figure, title, source)


# ----- shared -----


def _label_lines(axes: Axes, words: Mapping[str, str], looks: Mapping[str, dict[str, Any]]) -> None:
    """Each line's words above the plot, side by side, in its own color and as heavy as the line."""
    for place, (name, text) in enumerate(words.items()):
        axes.annotate(
            text,
            (place / len(words), 1.03),
            xycoords="axes fraction",
            color=style.word_color(looks[name]["color"]),
            fontsize=8.5,
            fontweight="bold" if looks[name] == _FAST else "normal",
        )


def _label_beside_ends(axes: Axes, ends: Mapping[str, float], x: float, looks: Mapping[str, dict]) -> None:
    """Each line's name right of its last point, the lowest first; names that would overprint stack upward."""
    below = float("-inf")
    for name, y in sorted(ends.items(), key=lambda item: item[1]):
        height = axes.transData.transform((x, y))[1]
        below = lifted = max(height, below + LINE_OF_TEXT)
        axes.annotate(
            name,
            (x, y),
            (7, lifted - height),
            textcoords="offset points",
            va="center",
            color=looks[name]["color"],
            fontsize=8.5,
            fontweight="bold",
            annotation_clip=False,
        )
