"""The elevator for where nothing moves: a strip of still pictures over a Gantt, as PNG bytes."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyBboxPatch, Polygon, Rectangle

from lessonlib.viz import style
from lessonlib.viz.gantt import draw_gantt, tidy_gantt_axis
from lessonlib.viz.ride import Phase, Ride, Rider

MOMENTS = 4
FIGURES_TO = 16
BARS_TO = 64
MOST_CELLS = 4096

CAR = "#4A5261"
COLORS = {
    Phase.PREFILL: style.PREFILL,
    Phase.DECODE: style.DECODE,
    Phase.FINISHED: style.FINISHED,
    Phase.STALLED: style.IDLE,
}


def strip(rides: Sequence[Ride], title: str) -> style.Picture:
    """For each ride its car at four moments; below, every slot over time."""
    tallest = [_car_height(ride) for ride in rides]
    gantt_height = 0.35 + 0.95 * len(rides)
    with style.applied():
        figure = style.picture(0.4 + sum(tallest) + gantt_height, alt=summary(rides))
        grid = figure.add_gridspec(len(rides) + 1, MOMENTS, height_ratios=[*tallest, gantt_height])
        for row, ride in enumerate(rides):
            for column, step in enumerate(key_steps(ride)):
                _draw_car(figure.add_subplot(grid[row, column]), ride, step, named=column == 0)
        axes = figure.add_subplot(grid[len(rides), :])
        draw_gantt(axes, rides)
        tidy_gantt_axis(axes, rides)
        return style.finish(figure, title) if title else figure


def summary(rides: Sequence[Ride]) -> str:
    """What the strip shows, in words and counts that are the same every time."""
    return "\n".join(["Elevator", *(f"  {_line(ride)}" for ride in rides)])


def _line(ride: Ride) -> str:
    if not ride.num_steps:
        return f"{ride.name}: no steps, nobody rides"
    tokens = int(ride.requests[0].sum())
    share = tokens / (ride.slots * ride.num_steps)
    requests, slots = _count(ride.requests.shape[1], "request"), _count(ride.slots, "slot")
    steps = _count(ride.num_steps, "step")
    return f"{ride.name}: {requests} in {slots}, {steps}, {_count(tokens, 'token')}, {share:.1%} utilization"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def key_steps(ride: Ride) -> list[int]:
    """The first step, two in between, the last: fewer where the ride is shorter."""
    last = max(0, ride.num_steps - 1)
    return sorted({round(last * moment / (MOMENTS - 1)) for moment in range(MOMENTS)})


def _layout(slots: int) -> tuple[int, int]:
    """Columns and rows of slots in a car."""
    if slots <= FIGURES_TO:
        rows = ceil(slots / 8)
    elif slots <= BARS_TO:
        rows = ceil(slots / 32)
    else:
        rows = max(1, round((slots / 4) ** 0.5))
    return ceil(slots / rows), rows


def _car_height(ride: Ride) -> float:
    _, rows = _layout(ride.slots)
    return 0.45 + (0.36 * rows if ride.slots <= BARS_TO else 0.5)


def _draw_car(axes: Axes, ride: Ride, step: int, named: bool) -> None:
    columns, rows = _layout(ride.slots)
    axes.set(xlim=(-0.3, columns + 0.3), ylim=(-0.25, rows + 0.25), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    words = f"step {step:,}" if ride.num_steps else "no steps"
    axes.set_title(f"{ride.name}, {words}" if named else words, fontsize=8, loc="left", pad=3)
    axes.add_patch(
        Rectangle((-0.2, -0.18), columns + 0.4, rows + 0.36, fill=False, edgecolor=CAR, linewidth=2)
    )
    if ride.slots > MOST_CELLS:
        axes.text(columns / 2, rows / 2, f"{ride.slots:,} slots", ha="center", va="center")
        return
    draw = _draw_figure if ride.slots <= FIGURES_TO else _draw_bar
    for slot, rider in enumerate(ride.frame(step).riders):
        x, y = slot % columns, rows - 1 - slot // columns
        if rider is None:
            _draw_idle(axes, x, y, ride.slots)
        else:
            draw(axes, x, y, rider)


def _draw_idle(axes: Axes, x: float, y: float, slots: int) -> None:
    hatch = style.IDLE_HATCH if slots <= FIGURES_TO else None
    axes.add_patch(
        Rectangle(
            (x + 0.06, y + 0.04), 0.88, 0.92, facecolor=CAR, edgecolor=style.IDLE, linewidth=0, hatch=hatch
        )
    )


def _draw_figure(axes: Axes, x: float, y: float, rider: Rider) -> None:
    color = COLORS[rider.phase]
    center = x + 0.5
    axes.add_patch(Circle((center, y + 0.82), 0.13, color=color, linewidth=0))
    shape = "square,pad=0" if rider.phase is Phase.PREFILL else "round,pad=0,rounding_size=0.2"
    body = FancyBboxPatch((center - 0.26, y + 0.08), 0.52, 0.56, boxstyle=shape, linewidth=1.1)
    body.set(facecolor="none", edgecolor=color)
    axes.add_patch(body)
    share = 1.0 if rider.phase is Phase.FINISHED else rider.done / max(1, rider.goal)
    filled = Rectangle((center - 0.26, y + 0.08), 0.52, 0.56 * share, color=color, linewidth=0)
    axes.add_patch(filled)
    filled.set_clip_path(body)
    if rider.phase is Phase.FINISHED:
        check = [(center - 0.13, y + 0.36), (center - 0.03, y + 0.24), (center + 0.15, y + 0.48)]
        axes.add_patch(Polygon(check, closed=False, fill=False, edgecolor="white", linewidth=1.4))


def _draw_bar(axes: Axes, x: float, y: float, rider: Rider) -> None:
    axes.add_patch(
        Rectangle((x + 0.06, y + 0.04), 0.88, 0.92, color=COLORS[rider.phase], alpha=0.25, linewidth=0)
    )
    share = 1.0 if rider.phase is Phase.FINISHED else rider.done / max(1, rider.goal)
    axes.add_patch(
        Rectangle((x + 0.06, y + 0.04), 0.88, 0.92 * share, color=COLORS[rider.phase], linewidth=0)
    )
