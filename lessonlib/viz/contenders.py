"""Contenders side by side as pictures, from a `Comparison` alone: bars by row, the sweep, the knee."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter, NullLocator

from lessonlib.errors import CourseError
from lessonlib.result import Comparison, Latencies, Result, RowFacts
from lessonlib.split import Part, split
from lessonlib.viz import style, waterfall

# Contenders have no color of their own: the course's wears decode's, the others are ink, told apart by line and mark.
LOOKS: dict[str, dict[str, Any]] = {
    **{
        f"course-{form}": {"color": style.DECODE, "linestyle": ":", "marker": "."}
        for form in ("static", "continuous", "paged", "mixed")
    },
    "course": {"color": style.DECODE, "linestyle": "-", "marker": "o", "linewidth": 2.0},
    "mine": {"color": style.DECODE, "linestyle": "--", "marker": "*"},
    "vllm": {"color": style.INK, "linestyle": "-", "marker": "s"},
    "hf": {"color": style.INK, "linestyle": (0, (5, 2)), "marker": "^"},
    "hf-dynamic": {"color": style.INK, "linestyle": ":", "marker": "v"},
    "hf-cb": {"color": style.INK, "linestyle": (0, (1, 1, 4, 1)), "marker": "D"},
}


SOURCE_COLUMNS = 100  # characters of a source that fit a line


def comparison_chart(comparison: Comparison) -> style.Picture:
    """Everything that was measured in one picture: bars of the rows, then the sweep, then the knee."""
    panels: list[Panel] = [panel for panel, rows in PANELS if _measured(comparison, rows(comparison))]
    if not panels:
        raise CourseError("nothing to draw: no contender finished a row")
    bars = len(_measured(comparison, bar_rows(comparison)))
    heights = [0.5 + 0.28 * bars if panel is _draw_bars else 2.6 for panel in panels]
    with style.applied():
        alt = f"Contenders side by side: {', '.join(comparison.contenders)}"
        figure = style.picture(0.7 + sum(heights), alt)
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, panel in zip(grid, panels, strict=True):
            panel(axes, comparison)
        return style.finish(figure, finding(comparison), source(comparison))


def rates(comparison: Comparison, title: str = "") -> style.Picture:
    """Bars of every row of mixed, fixed or recorded lengths; the title is the finding unless given."""
    bars = len(_measured(comparison, bar_rows(comparison)))
    return _chart(comparison, [_draw_bars], [0.5 + 0.28 * bars], title or finding(comparison))


def sweep(comparison: Comparison, title: str = "") -> style.Picture:
    """Tokens a second against the batch."""
    return _chart(comparison, [_draw_sweep], [2.8], title or sweep_finding(comparison))


def knee(comparison: Comparison, ttft_limit: float, title: str = "") -> style.Picture:
    """What the slowest hundredth waits, for a first token and for the next one, at rising rates of arrival.

    `ttft_limit`, in seconds, is what somebody is willing to wait for a first token.
    """
    words = title or knee_finding(comparison, ttft_limit)
    return _chart(comparison, [_draw_knee, _draw_gaps], [2.5, 2.5], words)


def _chart(
    comparison: Comparison, panels: Sequence[Panel], heights: Sequence[float], title: str
) -> style.Picture:
    """Panels one over the other. Raises `CourseError` where nothing was measured for them."""
    rows = [rows for panel, rows in PANELS if panel in panels]
    if not any(_measured(comparison, each(comparison)) for each in rows):
        raise CourseError("nothing to draw: no contender finished a row of this kind")
    with style.applied():
        alt = f"Contenders side by side: {', '.join(comparison.contenders)}"
        figure = style.picture(0.9 + sum(heights), alt)
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, panel in zip(grid, panels, strict=True):
            panel(axes, comparison)
        return style.finish(figure, title, source(comparison))


def source(comparison: Comparison) -> str:
    """Where, when and how it was measured, and with what."""
    machine = comparison.machine
    where = machine.get("gpu") or f"{machine.get('cpu')}, {machine.get('threads')} threads"
    first = f"{comparison.model}, {comparison.how.get('dtype')}; measured on {where}, {comparison.date}"
    return f"{fill(first, SOURCE_COLUMNS)}\n{fill(comparison.command, SOURCE_COLUMNS)}"


def finding(comparison: Comparison) -> str:
    """Who gave how much of whose tokens, on the first row that two contenders finished."""
    for row in comparison.rows:
        results = sorted(_measured(comparison, [row]), key=lambda each: -each.rate)
        if len(results) > 1:
            best, *_, last = results
            times = f"{best.rate / last.rate:.1f} times the tokens"
            return f"{best.contender} gives {times} of {last.contender} on {row.name}"
    return "One contender, no comparison"


def sweep_finding(comparison: Comparison) -> str:
    """How much more each one gives in the largest batch than in the smallest, or as far as it came."""
    rows, words = comparison.sweep_rows, []
    for name in comparison.contenders:
        batches, given = comparison.sweep(name)
        if len(batches) > 1:
            end = "" if batches[-1] == rows[-1].requests else f" (to {batches[-1]:,})"
            words.append(f"{name} × {given[-1] / given[0]:.1f}{end}")
    if not words:
        return "One batch size, no sweep"
    return f"From {rows[0].requests:,} to {rows[-1].requests:,} requests: {', '.join(words)}"


def knee_finding(comparison: Comparison, ttft_limit: float) -> str:
    """The highest rate of arrival at which 99 of 100 have their first token in time, for each contender."""
    words = [f"{name} {_knee(comparison, name, ttft_limit)}" for name in comparison.contenders]
    return f"99 of 100 first tokens within {ttft_limit:g} s: {', '.join(words)}"


def _knee(comparison: Comparison, name: str, ttft_limit: float) -> str:
    """ "up to 4/s": the last row before the first one that is late."""
    highest = ""
    for row in online_rows(comparison):
        result = comparison.of(name, row.name)
        if not result or not result.latencies or result.latencies.percentile(99) > ttft_limit:
            break
        highest = row.name.removeprefix("online ")
    return f"up to {highest}" if highest else "at no rate"


def split_finding(parts: Sequence[Part]) -> str:
    """The whole way, and how much of it is fewer steps and how much quicker ones."""
    first, last = parts[0], parts[-1]
    fewer, quicker = first.steps / last.steps, first.seconds_per_step / last.seconds_per_step
    ends = f"{first.contender} to {last.contender} × {fewer * quicker:.1f}"
    return f"{ends}: × {fewer:.1f} in fewer steps, × {quicker:.1f} in quicker ones"


def bar_rows(comparison: Comparison) -> list[RowFacts]:
    """Rows that stand as bars."""
    return [row for row in comparison.rows if row.kind in ("mixed", "fixed", "trace")]


def split_rows(comparison: Comparison) -> list[RowFacts]:
    """The row whose gain is taken apart, where somebody finished it with a Trace."""
    results = _measured(comparison, [row for row in comparison.rows if row.kind == "split"])
    names = {each.row for each in results if each.trace}
    return [row for row in comparison.rows if row.name in names][:1]


def online_rows(comparison: Comparison) -> list[RowFacts]:
    """Rows with arrivals, by rate."""
    return sorted((row for row in comparison.rows if row.kind == "online"), key=lambda row: row.rate)


def _measured(comparison: Comparison, rows: Sequence[RowFacts]) -> list[Result]:
    names = {row.name for row in rows}
    return [each for each in comparison.results if each.row in names and each.repetitions]


def _draw_bars(axes: Axes, comparison: Comparison) -> None:
    """One bar a contender and row; a line across its end from the slowest run to the fastest."""
    labels, place = [], 0.0
    for row in bar_rows(comparison):
        results = _measured(comparison, [row])
        for result in results:
            _draw_bar(axes, place, result)
            labels.append((place, f"{row.name}, {result.contender}"))
            place -= 1
        place -= 0.4 if results else 0
    most = max(each.spread[1] for each in _measured(comparison, bar_rows(comparison)))
    axes.set_yticks([at for at, _ in labels], [words for _, words in labels])
    axes.set(xlabel="tok/s that somebody asked for", xlim=(0, 1.15 * most))
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(style.thousands)
    style.quiet_grid(axes, "x")


def _draw_bar(axes: Axes, place: float, result: Result) -> None:
    low, high = result.spread
    axes.barh(place, result.rate, 0.75, color=LOOKS[result.contender]["color"])
    axes.plot((low, high), (place, place), color="white", linewidth=1)
    axes.annotate(
        style.number(result.rate), (high, place), (5, 0), textcoords="offset points", va="center", fontsize=8
    )


def _draw_split(axes: Axes, comparison: Comparison) -> None:
    """Each contender against the one before."""
    waterfall.draw(axes, split(comparison, split_rows(comparison)[0].name))


def _draw_sweep(axes: Axes, comparison: Comparison) -> None:
    """Tokens a second against the batch; a cross where memory ran out."""
    rows = comparison.sweep_rows
    for name in comparison.contenders:
        found = [(row.requests, comparison.of(name, row.name)) for row in rows]
        points = list(zip(*comparison.sweep(name), strict=True))
        if points:
            axes.plot(*zip(*points, strict=True), markersize=4, **LOOKS[name])
            _name_line(axes, name, points[-1])
        for batch in [batch for batch, each in found if each and each.is_out_of_memory]:
            axes.plot(batch, 0, "x", color=style.PREEMPTED, markersize=8, clip_on=False)
            axes.annotate(
                f"{name}: out of memory",
                (batch, 0),
                (0, 8),
                textcoords="offset points",
                ha="right",
                fontsize=8,
            )
    axes.set(xscale="log", xlabel="requests in the batch", ylabel="tok/s")
    axes.set_xticks([row.requests for row in rows], [f"{row.requests:,}" for row in rows])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(style.thousands)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.12)
    style.quiet_grid(axes)


def _draw_knee(axes: Axes, comparison: Comparison) -> None:
    """What the slowest hundredth waits for its first token, against what the engine gives."""
    _draw_wait(axes, comparison, lambda latencies: latencies.percentile(99), "TTFT, 99th percentile, s")


def _draw_gaps(axes: Axes, comparison: Comparison) -> None:
    """What the slowest hundredth of tokens takes after the one before, against what the engine gives."""
    _draw_wait(axes, comparison, lambda latencies: 1000 * latencies.gaps["p99"], "between tokens, 99th, ms")


def _draw_wait(axes: Axes, comparison: Comparison, wait: Callable[[Latencies], float], words: str) -> None:
    for name in comparison.contenders:
        found = [comparison.of(name, row.name) for row in online_rows(comparison)]
        points = [(each.rate, wait(each.latencies)) for each in found if each and each.latencies]
        if points:
            axes.plot(*zip(*points, strict=True), markersize=4, **LOOKS[name])
            _name_line(axes, name, points[-1])
    axes.set(yscale="log", xlabel="tok/s, at rising rates of arrival", ylabel=words)
    axes.xaxis.set_major_formatter(style.thousands)
    axes.yaxis.set_major_formatter(style.thousands)
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
    axes.margins(x=0.12)
    style.quiet_grid(axes)


def _name_line(axes: Axes, name: str, end: tuple[float, float]) -> None:
    axes.annotate(
        name,
        end,
        (5, 4),
        textcoords="offset points",
        fontsize=8.5,
        color=style.word_color(LOOKS[name]["color"]),
    )


Panel = Callable[[Axes, Comparison], None]
PANELS: tuple[tuple[Panel, Callable[[Comparison], list[RowFacts]]], ...] = (
    (_draw_bars, bar_rows),
    (_draw_split, split_rows),
    (_draw_sweep, lambda comparison: comparison.sweep_rows),
    (_draw_knee, online_rows),
    (_draw_gaps, online_rows),
)
