"""The elevator for where nothing moves: a strip of still pictures over a Gantt.

A car stands over its blocks of K/V memory where the Trace models them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.patches import Circle, FancyBboxPatch, Polygon, Rectangle

from lessonlib.counting import count
from lessonlib.viz import style
from lessonlib.viz.gantt import draw_gantt, gantt_height, tidy_gantt_axis
from lessonlib.viz.ride import Memory, Phase, Ride, Rider

MOMENTS = (0.0, 1 / 3, 2 / 3, 1.0)
FIGURES_TO = 16
BARS_TO = 64
MOST_CELLS = 4096
NARROWEST = 4  # slots' width that even a smaller car is given, so that riders look alike
TALL = 1.3  # a figure's cell is this much taller than wide
BLOCKS_TO = 400
MEMORY_TALL = 0.42  # inches of a memory floor, without its words

CAR = "#4A5261"
COLORS = {
    Phase.PREFILL: style.PREFILL,
    Phase.DECODE: style.DECODE,
    Phase.FINISHED: style.FINISHED,
    Phase.STALLED: style.IDLE,
}


def strip(rides: Sequence[Ride], title: str) -> style.Picture:
    """For each ride its car at four moments of the common clock; below, every slot over time."""
    # A row for each car, and one for its memory; (ride, whether it is memory).
    rows = [(ride, memory) for ride in rides for memory in (False, True) if ride.capacity or not memory]
    heights = [0.22 + MEMORY_TALL if memory else car_height(ride.slots) for ride, memory in rows]
    with style.applied():
        below = gantt_height(rides)
        figure = style.picture((0.35 if title else 0.1) + sum(heights) + below, alt=summary(rides))
        times = key_times(rides)
        grid = figure.add_gridspec(len(rows) + 1, len(times), height_ratios=[*heights, below])
        for row, (ride, memory) in enumerate(rows):
            for column, time in enumerate(times):
                axes = figure.add_subplot(grid[row, column])
                if memory:
                    draw_memory(axes, ride, time)
                else:
                    draw_car(axes, ride, time, named=column == 0)
        axes = figure.add_subplot(grid[len(rows), :])
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
    requests, slots = count(ride.requests.shape[1], "request"), count(ride.slots, "slot")
    steps = count(ride.num_steps, "step")
    words = f"{ride.name}: {requests} in {slots}, {steps}, {count(tokens, 'token')}, {share:.1%} utilization"
    if ride.capacity:
        most = ride.capacity - int(ride.step_blocks.min(initial=ride.capacity))
        words = f"{words}; at most {most:,} of {count(ride.capacity, 'block')} held"
    if ride.overheard.shape[1]:
        readers = len(np.unique(ride.overheard[1]))
        words = f"{words}; {count(readers, 'request')} read what others wrote"
    return words


def key_times(rides: Sequence[Ride]) -> list[float]:
    """The longest ride's first step, two in between and the last: their starts, fewer for a short ride."""
    longest = max(rides, key=lambda ride: ride.times[-1])
    last = max(0, longest.num_steps - 1)
    return [float(longest.times[step]) for step in sorted({round(last * moment) for moment in MOMENTS})]


# ----- a car -----


def _layout(slots: int) -> tuple[int, int]:
    """Columns and rows of slots in a car."""
    if slots <= FIGURES_TO:
        rows = ceil(slots / 4) if slots <= 8 else ceil(slots / 8)
    elif slots <= BARS_TO:
        rows = ceil(slots / 32)
    else:
        rows = max(1, round((slots / 3) ** 0.5))
    return ceil(slots / rows), rows


def car_height(slots: int) -> float:
    """Inches, with the words above it."""
    columns, rows = _layout(slots)
    return 0.3 + (
        1.32 / (max(columns, NARROWEST) + 0.6) * (rows * TALL + 0.4) if slots <= FIGURES_TO else 0.6
    )


def draw_car(axes: Axes, ride: Ride, time: float, named: bool) -> None:
    columns, rows = _layout(ride.slots)
    tall = TALL if ride.slots <= FIGURES_TO else 1.0
    step = _step_at(ride, time)
    axes.set(
        xlim=(-0.25, max(columns, NARROWEST) + 0.25), ylim=(-0.2, rows * tall + 0.2), xticks=[], yticks=[]
    )
    axes.spines[:].set_visible(False)
    if ride.slots <= FIGURES_TO:
        axes.set_aspect("equal", anchor="W")
    words = _moment(ride, step)
    axes.set_title(f"{ride.name}, {words}" if named else words, fontsize=7.5, loc="left", pad=3)
    frame = (-0.14, -0.12), columns + 0.28, rows * tall + 0.24
    axes.add_patch(Rectangle(*frame, fill=False, edgecolor=CAR, linewidth=2.2))
    if ride.slots > MOST_CELLS:
        axes.text(columns / 2, rows / 2, count(ride.slots, "slot"), ha="center", va="center")
        return
    riders = ride.frame(step).riders
    if ride.slots > BARS_TO:
        axes.imshow(
            _cells(riders, rows, columns),
            extent=(0, columns, 0, rows),
            aspect="auto",
            interpolation="nearest",
        )
        return
    for slot, rider in enumerate(riders):
        x, y = slot % columns, (rows - 1 - slot // columns) * tall
        if rider is None:
            _draw_idle(axes, x, y, tall, ride.slots)
        elif ride.slots <= FIGURES_TO:
            _draw_figure(axes, x + 0.5, y + 0.06, rider)
        else:
            _draw_bar(axes, x, y, rider)


def _step_at(ride: Ride, time: float) -> int:
    return int(np.searchsorted(ride.times, time + 1e-9, side="right")) - 1


def _moment(ride: Ride, step: int) -> str:
    if not ride.num_steps:
        return "no steps"
    return "all home" if step >= ride.num_steps else f"step {step:,}"


def _draw_idle(axes: Axes, x: float, y: float, tall: float, slots: int) -> None:
    gap = 0.05 if slots <= FIGURES_TO else 0.03
    seat = Rectangle((x + gap, y + gap), 1 - 2 * gap, tall - 2 * gap, facecolor=CAR, linewidth=0)
    if slots <= FIGURES_TO:
        seat.set(edgecolor=style.IDLE, hatch=style.IDLE_HATCH)
    axes.add_patch(seat)


def _share(rider: Rider) -> float:
    return 1.0 if rider.phase is Phase.FINISHED else rider.done / max(1, rider.goal)


def _draw_figure(axes: Axes, center: float, foot: float, rider: Rider) -> None:
    """A rider: square while it reads its prompt, round while it decodes, checked when it is home."""
    color = COLORS[rider.phase]
    axes.add_patch(Circle((center, foot + 0.97), 0.18, color=color, linewidth=0))
    shape = "square,pad=0" if rider.phase is Phase.PREFILL else "round,pad=0,rounding_size=0.24"
    body = FancyBboxPatch((center - 0.3, foot), 0.6, 0.72, boxstyle=shape, linewidth=1.1)
    body.set(facecolor="none", edgecolor=color)
    axes.add_patch(body)
    filled = Rectangle((center - 0.3, foot), 0.6, 0.72 * _share(rider), color=color, linewidth=0)
    axes.add_patch(filled)
    filled.set_clip_path(body)
    if rider.phase is Phase.PREFILL:
        for line in (0.18, 0.36, 0.54):
            axes.plot([center - 0.3, center + 0.3], [foot + line] * 2, color=color, linewidth=0.9)
    elif rider.phase is Phase.FINISHED:
        check = [(center - 0.15, foot + 0.36), (center - 0.04, foot + 0.22), (center + 0.17, foot + 0.5)]
        axes.add_patch(Polygon(check, closed=False, fill=False, edgecolor="white", linewidth=1.5))


def _draw_bar(axes: Axes, x: float, y: float, rider: Rider) -> None:
    color = COLORS[rider.phase]
    rest = Rectangle((x + 0.06, y + 0.04), 0.88, 0.92, facecolor=f"{color}40", edgecolor=color, linewidth=0)
    if rider.phase is Phase.PREFILL:
        rest.set_hatch(style.PREFILL_HATCH * 2)
    axes.add_patch(rest)
    axes.add_patch(Rectangle((x + 0.06, y + 0.04), 0.88, 0.92 * _share(rider), color=color, linewidth=0))


def _cells(riders: Sequence[Rider | None], rows: int, columns: int) -> np.ndarray:
    """RGBA, float64 `[rows, columns, 4]`: a cell a slot, stronger the further its rider has come."""
    image = np.zeros((rows * columns, 4))
    for slot, rider in enumerate(riders):
        image[slot] = (
            to_rgba(CAR) if rider is None else to_rgba(COLORS[rider.phase], 0.35 + 0.65 * _share(rider))
        )
    return image.reshape(rows, columns, 4)


# ----- its memory -----


def draw_memory(axes: Axes, ride: Ride, time: float) -> None:
    """The blocks below a car: shared ones round, then each rider's in its color, then free ones, hollow."""
    step = _step_at(ride, time)
    memory = ride.memory(step)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(f"{memory.held:,} of {ride.capacity:,} blocks held", fontsize=7, loc="left", pad=2)
    runs = _block_runs(memory, ride.frame(step).riders)
    if ride.capacity <= BLOCKS_TO:
        _draw_blocks(axes, runs, ride.capacity)
    else:
        _draw_shares(axes, runs, ride.capacity)


Run = tuple[str, int, str]  # shared, own, other or free; blocks; color


def _block_runs(memory: Memory, riders: Sequence[Rider | None]) -> list[Run]:
    owned = [
        ("own", blocks, COLORS[rider.phase])
        for blocks, rider in zip(memory.own, riders, strict=True)
        if rider is not None and blocks
    ]
    rest = ("other", memory.other, style.INK), ("free", memory.free, style.IDLE)
    return [run for run in (("shared", memory.shared, style.SHARED), *owned, *rest) if run[1]]


def _draw_blocks(axes: Axes, runs: Sequence[Run], capacity: int) -> None:
    """A cell a block, row by row; a dark line where the next owner's begin."""
    columns = min(capacity, max(12, ceil((capacity * 3.2) ** 0.5)))
    rows = ceil(capacity / columns)
    axes.set(xlim=(-0.3, columns + 0.3), ylim=(-rows - 0.1, 0.2))
    axes.set_aspect("equal", anchor="NW")
    place = 0
    for kind, length, color in runs:
        at = [(index % columns, -(index // columns) - 1) for index in range(place, place + length)]
        round_, hollow = kind == "shared", kind == "free"
        cells = [
            Circle((x + 0.5, y + 0.5), 0.42) if round_ else Rectangle((x + 0.08, y + 0.08), 0.84, 0.84)
            for x, y in at
        ]
        blocks = PatchCollection(cells, facecolor="none" if hollow else color, edgecolor=color)
        blocks.set_linewidth(0.5 if hollow else 0)
        axes.add_collection(blocks)
        if kind == "own":
            axes.plot([at[0][0]] * 2, [at[0][1], at[0][1] + 1], color=style.INK, linewidth=0.9)
        place += length


def _draw_shares(axes: Axes, runs: Sequence[Run], capacity: int) -> None:
    """A bar of the whole pool, a segment a run."""
    axes.set(xlim=(0, capacity), ylim=(-0.9, 0))
    place = 0
    for kind, length, color in runs:
        hollow = kind == "free"
        segment = Rectangle((place, -0.6), length, 0.55, facecolor="none" if hollow else color)
        segment.set(edgecolor=style.IDLE if hollow else "white", linewidth=0.7 if hollow else 0.25)
        axes.add_patch(segment)
        place += length
