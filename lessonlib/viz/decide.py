"""Pictures that decide between policies, from plain data (`simulation.decide` makes it): few policies each.

The caller computes the finding and passes it as the title. The policy to look at wears decode's color; the others are
ink, told apart by line and mark, each with its name beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from lessonlib.errors import CourseError
from lessonlib.viz import style

MOST_POLICIES = 5
_INK_LINES: tuple[dict[str, Any], ...] = (
    {"linestyle": (0, (5, 2)), "marker": "s"},
    {"linestyle": ":", "marker": "^"},
    {"linestyle": "-", "marker": "D"},
    {"linestyle": (0, (1, 1, 4, 1)), "marker": "v"},
)

Points = Sequence[tuple[float, float, int]]


def looks(names: Sequence[str], highlight: str = "") -> dict[str, dict[str, Any]]:
    """How each policy is drawn. Raises `CourseError` for none, more than `MOST_POLICIES`, or an unknown `highlight`."""
    if not names:
        raise CourseError("nothing to draw: give at least one policy")
    if len(names) > MOST_POLICIES:
        raise CourseError(f"{len(names)} policies in one picture: choose {MOST_POLICIES} at most")
    chosen = highlight or names[-1]
    if chosen not in names:
        raise CourseError(f"no policy {chosen!r} to set off: there are {', '.join(names)}")
    others = iter(_INK_LINES)
    blue = {"color": style.DECODE, "linestyle": "-", "marker": "o", "linewidth": 2.2}
    return {
        name: blue if name == chosen else {"color": style.INK, "linewidth": 1.3, **next(others)}
        for name in names
    }


def _name(axes: Axes, text: str, at: tuple[float, float], look: Mapping[str, Any], **placed: Any) -> None:
    """Write a policy's name beside its line."""
    how = {"xytext": (5, 0), "ha": "left", "va": "center", **placed}
    axes.annotate(
        text, at, textcoords="offset points", color=style.word_color(look["color"]), fontsize=8.5,
        fontweight="bold" if look["color"] == style.DECODE else "normal", annotation_clip=False, **how,
    )  # fmt: skip


def pareto_plane(
    curves: Mapping[str, Points],
    title: str,
    *,
    highlight: str = "",
    floor: float | None = None,
    source: str = "",
    alt: str = "",
) -> style.Picture:
    """Tokens a second to one user against tokens a second of the card: up and to the right is better on both.

    Args:
        curves: policy -> (tokens/s to one user, tokens/s of the card, slots) at each number of slots.
        highlight: the policy to set off; by default the last.
        floor: tokens a second that a user must get, drawn as a line.

    Raises:
        CourseError: as `looks` does.
    """
    drawn = looks([*curves], highlight)
    with style.applied():
        figure = style.picture(
            3.6, alt or f"Tokens a second to one user and of the card: {', '.join(curves)}"
        )
        axes = figure.add_subplot()
        for name, points in curves.items():
            users, cards, _ = zip(*points, strict=True)
            axes.plot(users, cards, markersize=4.5, **drawn[name])
        _name_curves(axes, curves, drawn)
        if floor is not None:
            axes.axvline(floor, color=style.PREEMPTED, linewidth=1, linestyle="--")
            axes.annotate(
                f"a user must get {floor:g}", (floor, 0), (4, 4), xycoords=("data", "axes fraction"),
                textcoords="offset points", fontsize=8, color=style.word_color(style.PREEMPTED),
            )  # fmt: skip
        axes.set(
            xlabel="tokens a second to one user (median); small numbers: slots",
            ylabel="tokens a second of the card",
        )
        axes.margins(0.12)
        axes.set(xlim=(0, None), ylim=(0, None))
        axes.yaxis.set_major_formatter(style.thousands)
        style.quiet_grid(axes, "both")
        return style.finish(figure, title, source)


def _name_curves(axes: Axes, curves: Mapping[str, Points], drawn: Mapping[str, Mapping[str, Any]]) -> None:
    """Names beside the points at which the card gives most; of the one set off the slots too."""
    best = {name: max(points, key=lambda point: point[1]) for name, points in curves.items()}
    top = max(point[1] for point in best.values())
    heights = _apart({name: point[1] for name, point in best.items()}, 0.08 * top)
    for name, (user, card, _) in best.items():
        if drawn[name]["color"] == style.DECODE:
            _name(axes, name, (user, card), drawn[name], xytext=(0, 7), ha="center", va="bottom")
            _write_slots(axes, curves[name])
        else:
            _name(axes, name, (user, heights[name]), drawn[name], xytext=(-7, 0), ha="right")


def _write_slots(axes: Axes, points: Points) -> None:
    """The slots beside each point, at one that others share the fewest: more did not help there."""
    seen = list[tuple[float, float]]()
    far = [0.04 * max(abs(point[axis]) for point in points) for axis in (0, 1)]
    for user, card, count in sorted(points, key=lambda point: point[2]):
        if not any(abs(user - x) < far[0] and abs(card - y) < far[1] for x, y in seen):
            axes.annotate(
                f"{count}", (user, card), (-4, -4), textcoords="offset points", ha="right", va="top", fontsize=7.5,
                color=style.INK,
            )  # fmt: skip
        seen.append((user, card))


def goodput_chart(
    rates: Sequence[float],
    shares: Mapping[str, Sequence[Sequence[float]]],
    levels: Sequence[str],
    knees: Mapping[str, Sequence[float]],
    title: str,
    *,
    highlight: str = "",
    kept_share: float = 0.9,
    source: str = "",
    alt: str = "",
) -> style.Picture:
    """The share of requests served at a level against the rate of arrival, a panel a level; a ring at each knee.

    Args:
        rates: requests a second, ascending.
        shares: policy -> for each level the share at each rate.
        levels: each level in words.
        knees: policy -> for each level the highest rate that still keeps the promise; 0: none does.
        kept_share: the share that a knee asks for, drawn as a line.

    Raises:
        CourseError: as `looks` does.
    """
    drawn = looks([*shares], highlight)
    with style.applied():
        figure = style.picture(
            0.7 + 2.3 * len(levels), alt or f"Requests served as promised: {', '.join(shares)}"
        )
        grid = figure.subplots(len(levels), 1, sharex=True, squeeze=False)[:, 0]
        for place, (axes, level) in enumerate(zip(grid, levels, strict=True)):
            axes.axhline(100 * kept_share, color=style.INK, linewidth=0.8, linestyle=":")
            ends = {name: 100 * per_level[place][-1] for name, per_level in shares.items()}
            for name, height in _apart(ends, 9.0).items():
                line = [100 * share for share in shares[name][place]]
                look = {key: value for key, value in drawn[name].items() if key != "marker"}
                axes.plot(rates, line, **look)
                _name(axes, _with_knee(name, knees[name][place]), (rates[-1], height), look)
                _ring(axes, knees[name][place], rates, line, look)
            axes.set_title(level, loc="left", fontsize=9)
            axes.set(ylabel="% served so", ylim=(-3, 104), xlim=(rates[0], rates[-1]))
            style.quiet_grid(axes)
        grid[-1].set_xlabel("requests that arrive a second")
        return style.finish(figure, title, source)


def _with_knee(name: str, knee: float) -> str:
    return f"{name}, to {knee:g}/s" if knee else f"{name}, at no rate"


def _ring(
    axes: Axes, knee: float, rates: Sequence[float], line: Sequence[float], look: Mapping[str, Any]
) -> None:
    if knee:
        axes.plot(
            [knee], [line[list(rates).index(knee)]], "o", markersize=9, markerfacecolor="none",
            markeredgecolor=look["color"], clip_on=False,
        )  # fmt: skip


def _apart(heights: Mapping[str, float], least: float) -> dict[str, float]:
    """The heights, moved down from the highest on until each is `least` below the one above; none below 0."""
    names = sorted(heights, key=lambda each: -heights[each])
    placed, above = dict[str, float](), np.inf
    for place, name in enumerate(names):
        above = min(heights[name], above - least)
        placed[name] = max(above, least * (len(names) - 1 - place))
    return placed


def two_groups(
    times: Mapping[str, Mapping[str, Sequence[float]]],
    title: str,
    *,
    unit: str = "s from arrival to the last token, p50 to p99",
    source: str = "",
    alt: str = "",
) -> style.Picture:
    """Two groups of requests under each policy: a line from the median to the 99th percentile, a row a policy.

    Args:
        times: policy -> group -> times; the same two groups everywhere. The first is drawn in decode's color.

    Raises:
        CourseError: for no policies, or groups that are not the same two.
    """
    groups = [*next(iter(times.values()), {})]
    if len(groups) != 2 or any([*each] != groups for each in times.values()):
        raise CourseError("two groups under each policy are drawn: give the same two everywhere")
    colors = dict(zip(groups, (style.DECODE, style.INK), strict=True))
    with style.applied():
        figure = style.picture(
            1.3 + 0.5 * len(times), alt or f"Times of {' and '.join(groups)}: {', '.join(times)}"
        )
        axes = figure.add_subplot()
        for row, by_group in enumerate(times.values()):
            for shift, (group, values) in zip((0.17, -0.17), by_group.items(), strict=True):
                middle, late = np.percentile(values, (50, 99))
                axes.plot([middle, late], [shift - row] * 2, color=colors[group], linewidth=2.4)
                axes.plot(
                    [middle], [shift - row], "o" if shift > 0 else "s", color=colors[group], markersize=6
                )
                axes.plot([late], [shift - row], "|", color=colors[group], markersize=9, markeredgewidth=2)
                if row == 0:
                    _name(axes, group, (late, shift), {"color": colors[group]}, xytext=(7, 0))
        axes.set_yticks([-row for row in range(len(times))], [*times])
        axes.set(xlabel=unit, ylim=(-len(times) + 0.4, 0.6))
        _log_where_wide(axes, times)
        style.quiet_grid(axes, "x")
        return style.finish(figure, title, source)


def _log_where_wide(axes: Axes, times: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """A logarithmic axis where the times differ by more than a factor of 30."""
    values = [np.percentile(each, (50, 99)) for by_group in times.values() for each in by_group.values()]
    low, high = np.min(values), np.max(values)
    if low <= 0 or high / low < 30:
        axes.set_xlim(0, high * 1.15)
        return
    axes.set_xscale("log")
    axes.set_xlim(low / 1.5, high * 2)
    ticks = [
        tick
        for tick in (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)
        if low / 1.5 <= tick <= high * 2
    ]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def served_chart(
    panels: Mapping[str, tuple[Sequence[float], Mapping[str, Sequence[float]]]],
    title: str,
    *,
    unit: str = "s",
    source: str = "",
    alt: str = "",
) -> style.Picture:
    """Tokens that each user has been given by then, a panel a policy, on one scale.

    Args:
        panels: policy -> (times, user -> tokens); the first user is drawn in ink, the last in decode's color.

    Raises:
        CourseError: for no panels, or more than three users.
    """
    if not panels or max(len(users) for _, users in panels.values()) > 3:
        raise CourseError("the tokens of one to three users are drawn, in a panel for each policy at least")
    with style.applied():
        figure = style.picture(3.0, alt or f"Tokens each user was given: {', '.join(panels)}")
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (name, (times, users)) in zip(grid, panels.items(), strict=True):
            for user, tokens in users.items():
                color = style.DECODE if user == [*users][-1] else style.INK
                axes.plot(times, tokens, color=color, linewidth=2.2 if color == style.DECODE else 1.3)
                end = (times[-1], tokens[-1])
                _name(axes, user, end, {"color": color}, xytext=(0, 4), ha="right", va="bottom")
            axes.set_title(name, loc="left", fontsize=9)
            axes.set(xlabel=unit, xlim=(0, times[-1]), ylim=(0, None))
            style.quiet_grid(axes)
        grid[0].set_ylabel("tokens given so far")
        grid[0].yaxis.set_major_formatter(style.thousands)
        return style.finish(figure, title, source)


PANELS = (
    ("tokens a second", "tokens_per_second", 1.0),
    ("first token, median s", "ttft_p50", 1.0),
    ("between tokens, p99 ms", "itl_p99", 1000.0),
)


def measured_and_predicted(
    rows: Sequence[Mapping[str, Any]], title: str, *, source: str = "", alt: str = ""
) -> style.Picture:
    """What was measured under each policy, filled, what was predicted, hollow, and by how much that is off.

    Args:
        rows: of `policy_bench.bench_policies`: "policy", and "measured", "predicted" and "error", each with the keys
            of `PANELS`. They are drawn in the order given.

    Raises:
        CourseError: for no rows.
    """
    if not rows:
        raise CourseError("nothing to draw: give the rows of a result of `lesson bench policies`")
    names = [row["policy"] for row in rows]
    with style.applied():
        figure = style.picture(1.0 + 0.24 * len(rows), alt or f"Measured and predicted: {', '.join(names)}")
        grid = figure.subplots(1, len(PANELS), sharey=True, squeeze=False)[0]
        for axes, (words, key, scale) in zip(grid, PANELS, strict=True):
            measured, predicted = (
                [scale * row[kind][key] for row in rows] for kind in ("measured", "predicted")
            )
            most = max(*measured, *predicted)
            for place, (seen, told) in enumerate(zip(measured, predicted, strict=True)):
                axes.plot([seen, told], [-place] * 2, color=style.INK, linewidth=1)
                axes.annotate(
                    f"{rows[place]['error'][key]:+.0%}",
                    (1.52 * most, -place),
                    ha="right",
                    va="center",
                    fontsize=7.5,
                )
            ys = [-place for place in range(len(rows))]
            axes.plot(measured, ys, "o", color=style.DECODE, markersize=5)
            axes.plot(predicted, ys, "o", markerfacecolor="none", markeredgecolor=style.INK, markersize=6)
            axes.set(xlim=(0, 1.55 * most), ylim=(-len(rows) + 0.4, 0.6))
            axes.set_title(words, loc="left", fontsize=8.5)
            axes.xaxis.set_major_formatter(style.thousands)
            style.quiet_grid(axes, "x")
        grid[0].set_yticks([-place for place in range(len(rows))], names)
        marks = "filled: measured; hollow: predicted, and how far that is off"
        return style.finish(figure, title, f"{marks}\n{source}".strip())
