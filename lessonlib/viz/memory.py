"""The plots of notebook 03: memory in one piece and in blocks, policies side by side, gaps between tokens.

As in `plots`: the caller computes the finding and passes it as the title; `source` names where the data is
from; `alt` says it in words for those who do not see it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter

from lessonlib.errors import CourseError
from lessonlib.trace import Kind, Trace
from lessonlib.viz import style
from lessonlib.viz.ride import Traces, named_traces

Region = tuple[float, float, float, float, str]
Used = Callable[[int, np.ndarray], np.ndarray] | Sequence[Sequence[float] | np.ndarray]

RESERVED_HATCH = "...."
HOLE = style.IDLE + "28"
RESERVED = "#BCD8EA"  # decode's tint, opaque: it hides the holes' hatch in either theme
MOST_DOTS = 20_000


# ----- memory in one piece -----


def memory_strip(
    regions: Sequence[Region],
    size: float,
    title: str,
    *,
    used: Used | None = None,
    mark: tuple[float, str] | None = None,
    xlabel: str = "step",
    ylabel: str = "memory, tokens",
    source: str = "",
    alt: str = "",
) -> style.Picture:
    """Memory (upward) over time (rightward): who has which piece of it, and the holes in between.

    Args:
        regions: (step_from, step_to, start, length, label) of each piece, held during the steps
            `step_from … step_to - 1`; `start` and `length` in the unit of `size`. Labels are written where
            they fit.
        size: all of the memory.
        used: how much of each region holds tokens: a list of arrays, one a region and one value a step, or a
            function of (place in `regions`, steps as an int array) that gives such an array. Without it a
            region counts as full.
        mark: (step, words): a moment to point out, such as a refusal beside free memory.

    Raises:
        CourseError: for no regions, one outside the memory, or `used` of another length.
    """
    check_regions(regions, size)
    end = max(region[1] for region in regions)
    with style.applied():
        figure = style.picture(
            3.6, alt or f"{len(regions):,} pieces of {size:,.0f} {ylabel} over {end:,.0f} {xlabel}s"
        )
        axes = figure.add_subplot()
        hole = Rectangle((0, 0), end, size, facecolor=HOLE, edgecolor=style.IDLE + "80", linewidth=0)
        hole.set(hatch=style.IDLE_HATCH)
        axes.add_patch(hole)
        _draw_reserved(axes, regions, hatched=used is not None)
        full = [_outline(region, used_of(used, place, region)) for place, region in enumerate(regions)]
        axes.add_collection(PolyCollection(full, facecolors=style.DECODE, linewidths=0))
        edges = [_corners(region) for region in regions]
        axes.add_collection(PolyCollection(edges, facecolors="none", edgecolors="white", linewidths=0.7))
        _label_regions(axes, regions, end, size)
        words = [("hole", style.INK), ("tokens", style.DECODE)]
        _explain(axes, words if used is None else [words[0], ("set aside", style.INK), words[1]])
        if mark:
            _draw_mark(axes, *mark, end)
        axes.set(xlim=(0, end), ylim=(0, size), xlabel=xlabel, ylabel=ylabel)
        axes.xaxis.set_major_formatter(style.thousands)
        axes.yaxis.set_major_formatter(style.thousands)
        return style.finish(figure, title, source)


def check_regions(regions: Sequence[Region], size: float) -> None:
    """Raises `CourseError` for no regions, or one outside the memory."""
    if not regions:
        raise CourseError("nothing to draw: give at least one region")
    for first, end, start, length, label in regions:
        if first >= end or length <= 0 or start < 0 or start + length > size:
            raise CourseError(
                f"region {label!r}: steps {first:g} to {end:g}, {length:g} from {start:g} on, "
                f"does not lie in a memory of {size:g}"
            )


def _corners(region: Region) -> list[tuple[float, float]]:
    first, end, start, length, _ = region
    return [(first, start), (end, start), (end, start + length), (first, start + length)]


def _draw_reserved(axes: Axes, regions: Sequence[Region], hatched: bool) -> None:
    """What is set aside, over the hatch of the holes."""
    pieces = [_corners(region) for region in regions]
    tint = PolyCollection(pieces, facecolors=RESERVED, edgecolors=style.DECODE + "90", linewidths=0)
    if hatched:
        tint.set_hatch(RESERVED_HATCH)
    axes.add_collection(tint)


def used_of(used: Used | None, place: int, region: Region) -> np.ndarray:
    """Tokens in one region in each of its steps, float64."""
    first, end, _, length, label = region
    steps = np.arange(int(first), int(end))
    if used is None:
        return np.full(len(steps), length)
    values = np.asarray(used(place, steps) if callable(used) else used[place], np.float64)
    if values.shape != steps.shape:
        raise CourseError(
            f"region {label!r} lasts {len(steps)} steps, but `used` has {values.size} values: give one a step"
        )
    return np.clip(values, 0, length)


def _outline(region: Region, tokens: np.ndarray) -> np.ndarray:
    """The area under the tokens, a stair of one step each, float64 `[corners, 2]`."""
    first, end, start = region[:3]
    x = np.repeat(np.linspace(first, end, len(tokens) + 1), 2)
    y = start + np.concatenate([[0], np.repeat(tokens, 2), [0]])
    return np.stack([x, y], 1)


def _label_regions(axes: Axes, regions: Sequence[Region], end: float, size: float) -> None:
    """Each region's label in its lower corner, white on blue, where there is room."""
    halo = [withStroke(linewidth=2.2, foreground=style.DECODE)]
    for first, last, start, length, label in regions:
        wide, tall = (last - first) / end, length / size
        if wide > 0.016 * len(label) + 0.01 and tall > 0.045:
            axes.annotate(
                label,
                (first, start),
                (4, 3),
                textcoords="offset points",
                color="white",
                fontsize=8,
                fontweight="bold",
                path_effects=halo,
                clip_on=True,
            )


def _explain(axes: Axes, words: Sequence[tuple[str, str]]) -> None:
    """What the fills mean, right-aligned above the plot: a sample of each, then its word."""
    looks: dict[str, dict[str, Any]] = {
        "hole": {"facecolor": HOLE, "edgecolor": style.IDLE + "80", "hatch": style.IDLE_HATCH},
        "set aside": {
            "facecolor": RESERVED,
            "edgecolor": style.DECODE + "90",
            "hatch": RESERVED_HATCH,
        },
        "tokens": {"facecolor": style.DECODE},
    }
    right = 1.0
    for word, color in words:
        left = right - 0.012 * len(word) - 0.045
        sample = Rectangle((left, 1.025), 0.028, 0.045, transform=axes.transAxes, linewidth=0, clip_on=False)
        sample.set(**looks[word])
        axes.add_patch(sample)
        axes.annotate(
            word,
            (left + 0.035, 1.048),
            xycoords="axes fraction",
            va="center",
            color=style.word_color(color),
            fontsize=8.5,
            annotation_clip=False,
        )
        right = left - 0.02


def _draw_mark(axes: Axes, step: float, words: str, end: float) -> None:
    """A line at a moment, its words above the plot, on the side that has room."""
    axes.axvline(step, color=style.PREEMPTED, linewidth=1.6, linestyle=(0, (4, 2)))
    axes.annotate(
        words,
        (min(step, 0.55 * end), 1.02),
        xycoords=("data", "axes fraction"),
        color=style.word_color(style.PREEMPTED),
        fontsize=8.5,
        fontweight="bold",
        va="bottom",
        annotation_clip=False,
    )


# ----- where the memory goes -----

# Share -> (word, look). What holds tokens is what the memory is for; the rest is one kind of waste each.
_SHARES: dict[str, tuple[str, dict[str, Any]]] = {
    "tokens": ("tokens", {"facecolor": style.DECODE}),
    "reservation": ("set aside\nfor later", {"facecolor": style.DECODE + "38", "hatch": RESERVED_HATCH}),
    "internal": ("set aside,\nnever used", {"facecolor": style.PREFILL + "30", "hatch": "xxxx"}),
    "external": ("free, but\ntoo small", {"facecolor": HOLE, "hatch": style.IDLE_HATCH}),
}


def memory_shares_bars(
    rows: Sequence[Mapping[str, Any]], title: str, *, source: str = "", alt: str = ""
) -> style.Picture:
    """What share of the memory holds tokens under each scheme, and where the rest goes: a bar each.

    Args:
        rows: for each scheme its name under "scheme", and shares (0 … 1) under "tokens", "reservation",
            "internal" and "external"; `MemoryShares.row()` gives such a row.

    Raises:
        CourseError: for no rows, or a row without a share.
    """
    missing = [name for row in rows for name in ("scheme", *_SHARES) if name not in row]
    if not rows or missing:
        raise CourseError(f"nothing to draw: give rows with {', '.join(missing) or 'scheme and shares'}")
    with style.applied():
        names = ", ".join(str(row["scheme"]) for row in rows)
        figure = style.picture(1.35 + 0.42 * len(rows), alt or f"Stacked bars of memory shares: {names}")
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            left = 0.0
            for name, (_, look) in _SHARES.items():
                share = 100 * float(row[name])
                _draw_share(axes, -place, left, share, name, look)
                left += share
        _head_shares(axes, rows)
        axes.set_yticks([-place for place in range(len(rows))], [str(row["scheme"]) for row in rows])
        axes.set(xlim=(0, 100.5), ylim=(-len(rows) + 0.45, 0.5), xlabel="share of the memory, %")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        return style.finish(figure, title, source)


def _draw_share(axes: Axes, y: float, left: float, share: float, name: str, look: dict[str, Any]) -> None:
    edge = "white" if name == "tokens" else style.IDLE + "90"
    axes.barh(y, share, 0.72, left=left, linewidth=0, **{"edgecolor": edge, **look})
    if share < 5:
        return
    solid = name == "tokens"
    axes.annotate(
        f"{share:.1f}%" if solid and share > 9 else f"{share:.0f}%",
        (left + share / 2, y),
        ha="center",
        va="center",
        fontsize=8.5,
        fontweight="bold" if solid else "normal",
        color="white" if solid else "#24292F",
        bbox=None if solid else {"boxstyle": "round,pad=0.15", "facecolor": "#FFFFFFD0", "linewidth": 0},
    )


def _head_shares(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """The four words in their fills, above the bars, in the order of the segments."""
    for place, (word, look) in enumerate(_SHARES.values()):
        x = 0.25 * place
        sample = Rectangle((x, 1.03), 0.032, 0.15 / len(rows) + 0.03, transform=axes.transAxes, clip_on=False)
        sample.set(linewidth=0, edgecolor=style.IDLE + "B0", **look)
        axes.add_patch(sample)
        axes.annotate(
            word,
            (x, 1.02),
            (22, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            va="bottom",
            fontsize=8.5,
            linespacing=1.05,
            annotation_clip=False,
        )


# ----- policies side by side -----


def policies_chart(
    rows: Sequence[Mapping[str, Any]],
    title: str,
    *,
    highlight: str | Sequence[str] = (),
    source: str = "",
    alt: str = "",
) -> style.Picture:
    """Policies, a row each in the order given: how much gets done, how long riders wait, what it costs.

    Args:
        rows: what `simulation.compare_policies` gives: "policy"; "tokens_per_second", else "steps";
            "ttft_seconds" or "ttft_steps" and "itl_seconds" or "itl_steps", each a dict with "p50" and "p99";
            "preemptions". What no row has gets no panel.
        highlight: name(s) of policies to set off; by default the best of each panel.

    Raises:
        CourseError: for no rows, or rows without a policy's name.
    """
    if not rows or any("policy" not in row for row in rows):
        raise CourseError("nothing to draw: give a row with its policy's name for each policy")
    panels = _policy_panels(rows)
    if not panels:
        raise CourseError("nothing to draw: the rows hold neither throughput nor times nor preemptions")
    chosen = {highlight} if isinstance(highlight, str) else set(highlight)
    names = [str(row["policy"]) for row in rows]
    with style.applied():
        figure = style.picture(1.15 + 0.27 * len(rows), alt or f"Dot plots of policies: {', '.join(names)}")
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, panel in zip(grid, panels, strict=True):
            _draw_policy_panel(axes, rows, panel, chosen)
        grid[0].set_yticks([-place for place in range(len(rows))], names)
        grid[0].set_ylim(-len(rows) + 0.4, 0.6)
        return style.finish(figure, title, source)


Panel = tuple[str, str, str, float, bool, bool]  # words, key, inner key, scale, less is better, logarithmic


def _policy_panels(rows: Sequence[Mapping[str, Any]]) -> list[Panel]:
    seconds = any("ttft_seconds" in row or "itl_seconds" in row for row in rows)
    unit, scale = ("seconds", 1000.0) if seconds else ("steps", 1.0)
    shown = "ms" if seconds else "steps"
    panels: list[Panel] = [
        ("throughput,\ntok/s", "tokens_per_second", "", 1.0, False, False),
        ("time to first token,\ns, p50 to p99", f"ttft_{unit}", "p50-p99", 1.0, True, True),
        (f"between tokens,\n{shown}, p99", f"itl_{unit}", "p99", scale, True, True),
        ("preemptions\n", "preemptions", "", 1.0, True, False),
    ]
    if not seconds:
        panels[1] = ("time to first token,\nsteps, p50 to p99", *panels[1][1:])
    if all(row.get("tokens_per_second") is None for row in rows):
        panels[0] = ("steps to get\neveryone home", "steps", "", 1.0, True, False)
    return [panel for panel in panels if any(row.get(panel[1]) not in (None, {}) for row in rows)]


def _draw_policy_panel(axes: Axes, rows: Sequence[Mapping[str, Any]], panel: Panel, chosen: set[str]) -> None:
    words, key, inner, scale, less, log = panel
    low, high = (_values(rows, key, quantile, scale) for quantile in _quantiles(inner))
    best = _best(high, less)
    log = log and np.nanmin(low) > 0
    for place, row in enumerate(rows):
        if np.isnan(high[place]):
            continue
        bold = str(row["policy"]) in chosen if chosen else high[place] == best
        color = style.DECODE if bold else style.INK
        if low[place] != high[place]:
            axes.plot([low[place], high[place]], [-place] * 2, color=color, linewidth=1.3)
            axes.plot(low[place], -place, "|", color=color, markersize=7, markeredgewidth=1.6)
        axes.plot(high[place], -place, "o" if bold else "D", color=color, markersize=5.5 if bold else 4)
        axes.annotate(
            style.number(high[place]),
            (high[place], -place),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            fontweight="bold" if bold else "normal",
            color=style.word_color(color),
            annotation_clip=False,
        )
    _tidy_policy_panel(axes, words, np.concatenate([low, high]), log)


def _best(values: np.ndarray, less: bool) -> float:
    """The value to set off: the least or the most, NaN where most rows share it."""
    best = np.nanmin(values) if less else np.nanmax(values)
    return float(best) if np.isclose(values, best).sum() <= len(values) / 2 else np.nan


def _quantiles(inner: str) -> tuple[str, str]:
    first, _, second = inner.partition("-")
    return first, second or first


def _values(rows: Sequence[Mapping[str, Any]], key: str, inner: str, scale: float) -> np.ndarray:
    """One float64 a row; NaN where it has none."""
    found = [row.get(key) for row in rows]
    plain = [value.get(inner) if isinstance(value, Mapping) else value for value in found]
    return scale * np.array([np.nan if value is None else float(value) for value in plain])


def _tidy_policy_panel(axes: Axes, words: str, values: np.ndarray, log: bool) -> None:
    """Room for the numbers right of the dots; few ticks."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if log:
        span = max(high / low, 2.0)
        axes.set(xscale="log", xlim=(low / span**0.08, low * span**1.5))
        axes.xaxis.set_major_locator(LogLocator(numticks=3))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        top = high or 1.0
        axes.set(xlim=(-0.06 * top, 1.5 * top))
        axes.set_xticks([0, top] if top >= 1 else [0])
    axes.xaxis.set_major_formatter(lambda value, _: style.number(value) if value else "0")
    axes.set_title(words, fontsize=8, loc="left", pad=4)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7.5)
    style.quiet_grid(axes, "y")


# ----- gaps between tokens -----


def gaps(traces: Traces, title: str, *, source: str = "", alt: str = "") -> style.Picture:
    """Each wait from one token of a rider to its next, over time: a panel a Trace, on one logarithmic axis.

    Blue dots are waits in which nobody's prompt was read, orange squares those in which one was, vermilion
    wedges those in which the rider itself was put off.

    Raises:
        CourseError: where no rider got a second token.
    """
    named = named_traces(traces)
    waits = {name: token_gaps(trace) for name, trace in named.items()}
    if not all(len(wait["gap"]) for wait in waits.values()):
        raise CourseError("nothing to draw: a gap needs a rider who gets two tokens")
    clock = next(iter(named.values())).header.clock
    scale, unit = (1000.0, "ms") if clock == "seconds" else (1.0, clock)
    with style.applied():
        figure = style.picture(1.05 + 1.35 * len(named), alt or f"Gaps between tokens: {', '.join(named)}")
        grid = figure.subplots(len(named), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, (name, wait) in zip(grid, waits.items(), strict=True):
            _draw_gaps(axes, wait, scale)
            middle, tail, longest = scale * np.percentile(wait["gap"], (50, 99, 100))
            words = f"median {style.number(middle)}, p99 {style.number(tail)}, longest {style.number(longest)} {unit}"
            axes.set_title(words, fontsize=8.5, loc="right", pad=4)
            axes.set_title(name, fontsize=8.5, loc="left", pad=4, fontweight="bold")
            axes.set_yscale("log")
            axes.set_ylabel(f"gap, {unit}")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
            axes.yaxis.set_major_formatter(style.thousands)
            axes.yaxis.set_minor_formatter(NullFormatter())
            style.quiet_grid(axes)
        grid[-1].set_xlabel(clock)
        grid[-1].xaxis.set_major_formatter(style.thousands)
        grid[-1].set_xlim(0, None)
        _explain_gaps(grid[0], waits)
        return style.finish(figure, title, source)


def token_gaps(trace: Trace) -> dict[str, np.ndarray]:
    """Every wait from one token of a request to its next, in order of request, then time.

    Returns:
        float64 "time" (when the later token came) and "gap", in the header's clock, int64 "request", and bool
        "prefill" (a prompt was read in between) and "preempted" (the rider was put off in between).
    """
    ends = trace.steps["start"] + trace.steps["duration"]
    decode = trace.rows(Kind.DECODE)
    request = np.repeat(decode["request"], decode["tokens"])
    within = np.arange(len(request)) - np.repeat(
        np.cumsum(decode["tokens"]) - decode["tokens"], decode["tokens"]
    )
    step = np.repeat(decode["step"], decode["tokens"]) + within
    same = request[1:] == request[:-1]
    before, later, request = step[:-1][same], step[1:][same], request[1:][same]
    read = np.zeros(trace.num_steps + 1, np.int64)
    np.add.at(read, trace.rows(Kind.PREFILL)["step"] + 1, 1)
    read = np.cumsum(read)
    off = trace.rows(Kind.PREEMPT)
    keys = off["request"] * (trace.num_steps + 2) + off["step"]
    times_off = np.searchsorted(
        keys, [request * (trace.num_steps + 2) + at for at in (before, later)], "right"
    )
    return {
        "time": ends[later] - (trace.steps["start"][0] if trace.num_steps else 0.0),
        "gap": ends[later] - ends[before],
        "request": request,
        "prefill": read[later + 1] > read[before + 1],
        "preempted": times_off[1] > times_off[0],
    }


_GAP_LOOKS: dict[str, tuple[str, dict[str, Any]]] = {
    "decode": ("only decoding", {"marker": "o", "color": style.DECODE, "markersize": 1.8}),
    "prefill": ("a prompt is read", {"marker": "s", "color": style.PREFILL, "markersize": 2.4}),
    "preempted": ("put off", {"marker": "v", "color": style.PREEMPTED, "markersize": 4}),
}


def _gap_groups(wait: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bool `[gaps]` by how a gap looks, those drawn later last."""
    off, read = wait["preempted"], wait["prefill"]
    return {"decode": ~read & ~off, "prefill": read & ~off, "preempted": off}


def _draw_gaps(axes: Axes, wait: Mapping[str, np.ndarray], scale: float) -> None:
    for name, chosen in _gap_groups(wait).items():
        points = np.unique(np.stack([wait["time"][chosen], scale * wait["gap"][chosen]]), axis=1)
        every = max(1, -(-points.shape[1] // MOST_DOTS))
        look = {**_GAP_LOOKS[name][1], "linestyle": "none", "markeredgewidth": 0}
        axes.plot(*points[:, ::every], **look)


def _explain_gaps(axes: Axes, waits: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """The marks that occur and their words, in a line above the top panel's own."""
    seen = [name for name in _GAP_LOOKS if any(_gap_groups(wait)[name].any() for wait in waits.values())]
    line: dict[str, Any] = {
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "va": "center",
        "annotation_clip": False,
    }
    shapes = {"o": "●", "s": "■", "v": "▼"}
    for place, name in enumerate(seen):
        word, look = _GAP_LOOKS[name]
        axes.annotate(shapes[look["marker"]], (0, 1), (112 * place, 24), color=look["color"], **line)
        color = style.word_color(look["color"])
        axes.annotate(word, (0, 1), (112 * place + 10, 24), color=color, fontsize=8.5, **line)
