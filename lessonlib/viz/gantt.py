"""Slots over time on a matplotlib axis: one lane a ride, decode filled, prefill and idle hatched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from lessonlib.trace import Kind
from lessonlib.viz import style
from lessonlib.viz.ride import Ride

LANE = 1.0
LANE_PITCH = 1.35
MOST_BARS = 4000
RASTER_COLUMNS = 1000
RASTER_ROWS = 128


def gantt_height(rides: Sequence[Ride]) -> float:
    """Inches for a Gantt of these rides with its axis."""
    return 0.5 + sum(0.3 + min(0.9, 0.12 * ride.slots + 0.1) for ride in rides)


def draw_gantt(axes: Axes, rides: Sequence[Ride]) -> None:
    """Draw every ride into `axes`, the first on top, all on one clock."""
    for place, ride in enumerate(rides):
        bottom = (len(rides) - 1 - place) * LANE_PITCH
        _draw_lane(axes, ride, bottom)
        axes.text(0, bottom + LANE + 0.05, ride.name, fontsize=8.5, fontweight="bold", ha="left", va="bottom")


def tidy_gantt_axis(axes: Axes, rides: Sequence[Ride]) -> None:
    """Limits, unit and ticks of a drawn Gantt."""
    end = max((ride.times[-1] for ride in rides), default=0.0)
    clocks = {ride.clock for ride in rides}
    axes.set(xlim=(0, end or 1), ylim=(-0.06, (len(rides) - 1) * LANE_PITCH + LANE + 0.2), yticks=[])
    axes.set_xlabel(clocks.pop() if len(clocks) == 1 else "clock")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if end >= 10 else f"{value:g}")
    axes.spines["left"].set_visible(False)


def _draw_lane(axes: Axes, ride: Ride, bottom: float) -> None:
    idle = Rectangle((0, bottom), ride.times[-1], LANE, linewidth=0, facecolor=style.IDLE + "30")
    idle.set(edgecolor=style.IDLE + "90", hatch=style.IDLE_HATCH)
    axes.add_patch(idle)
    if ride.spans.shape[1] <= MOST_BARS and ride.slots <= RASTER_ROWS:
        _draw_bars(axes, ride, bottom)
    else:
        _draw_raster(axes, ride, bottom)


def _draw_bars(axes: Axes, ride: Ride, bottom: float) -> None:
    slot, _, first, end, how, _ = ride.stays
    row = LANE / ride.slots
    gap = row * (0.12 if ride.slots <= 32 else 0)
    low = bottom + LANE - (slot + 1) * row + gap / 2

    def bars(stays: np.ndarray, left: np.ndarray, right: np.ndarray) -> list[np.ndarray]:
        """The corners of each bar, float64 `[4, 2]`."""
        x0, x1, y0 = ride.times[left], ride.times[right], low[stays]
        y1 = y0 + row - gap
        return list(
            np.stack([np.stack(corner, -1) for corner in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))], 1)
        )

    everyone = np.arange(len(slot))
    outline: dict[str, Any] = {"linewidths": 0.35, "edgecolors": "white"}
    axes.add_collection(PolyCollection(bars(everyone, first, end), facecolors=style.IDLE, linewidths=0))
    stay, kind, start, stop, _, _ = ride.spans
    decode, prefill = kind == Kind.DECODE, kind == Kind.PREFILL
    axes.add_collection(
        PolyCollection(bars(stay[decode], start[decode], stop[decode]), facecolors=style.DECODE, **outline)
    )
    reading = PolyCollection(bars(stay[prefill], start[prefill], stop[prefill]), facecolors=style.PREFILL)
    reading.set(edgecolor="white", linewidth=0.2, hatch=style.PREFILL_HATCH)
    axes.add_collection(reading)
    _draw_endings(axes, ride, how, low, row - gap)
    _draw_overheard(axes, ride, low, row - gap)


def _draw_endings(axes: Axes, ride: Ride, how: np.ndarray, low: np.ndarray, height: float) -> None:
    """A green cap where a rider got home, a vermilion wedge where one was put off."""
    right = ride.times[ride.stays[3]]
    wide = ride.times[-1] / 260
    home, off = how == Kind.FINISH, how == Kind.PREEMPT
    caps = [_corners(x - wide, x, y, height) for x, y in zip(right[home], low[home], strict=True)]
    wedges = [[(x, y), (x, y + height), (x - 3 * wide, y)] for x, y in zip(right[off], low[off], strict=True)]
    axes.add_collection(PolyCollection(caps, facecolors=style.FINISHED, linewidths=0))
    axes.add_collection(PolyCollection(wedges, facecolors=style.PREEMPTED, linewidths=0))


def _draw_overheard(axes: Axes, ride: Ride, low: np.ndarray, height: float) -> None:
    """A line in vermilion below each step in which a rider reads what another has written."""
    lines = []
    _, request, first, end, _, _ = ride.stays
    for step, reader, _, _ in ride.overheard.T:
        for stay in np.flatnonzero((request == reader) & (first <= step) & (step < end)):
            lines.append(_corners(ride.times[step], ride.times[step + 1], low[stay], height / 5))
    axes.add_collection(PolyCollection(lines, facecolors=style.PREEMPTED, linewidths=0))


def _corners(x0: float, x1: float, y0: float, height: float) -> list[tuple[float, float]]:
    return [(x0, y0), (x1, y0), (x1, y0 + height), (x0, y0 + height)]


def _draw_raster(axes: Axes, ride: Ride, bottom: float) -> None:
    """Many rows or riders: each pixel by the share of it that decodes and prefills."""
    if not ride.num_steps:
        return
    columns = min(RASTER_COLUMNS, ride.num_steps)
    decode, prefill = (_cover(ride, kind, columns) for kind in (Kind.DECODE, Kind.PREFILL))
    busy = np.clip(decode + prefill, 0, 1)
    blend = np.divide(prefill, busy, out=np.zeros_like(busy), where=busy > 0)[..., None].clip(0, 1)
    color = np.array(to_rgb(style.DECODE)) * (1 - blend) + np.array(to_rgb(style.PREFILL)) * blend
    image = np.concatenate([color, busy[..., None]], -1)
    axes.imshow(
        image,
        extent=(0, float(ride.times[-1]), bottom, bottom + LANE),
        aspect="auto",
        interpolation="nearest",
        zorder=2,
    )


def _cover(ride: Ride, kind: Kind, columns: int) -> np.ndarray:
    """Float64 `[rows, columns]`: share of each cell's slot-time that work of one kind covers."""
    together = -(-ride.slots // RASTER_ROWS)  # slots that share a row
    rows = -(-ride.slots // together)
    chosen = ride.spans[:, ride.spans[1] == kind]
    row = ride.stays[0][chosen[0]] // together
    per_unit = columns / ride.times[-1]
    # The running sum of a cell's coverage is linear between a span's ends, so two ramps give all of it.
    sums = np.zeros((rows, columns + 1))
    for step, sign in ((chosen[2], 1.0), (chosen[3], -1.0)):
        x = ride.times[step] * per_unit
        cell = np.minimum(x.astype(np.int64), columns - 1)
        np.add.at(sums, (row, cell), sign * (cell + 1 - x))
        np.add.at(sums, (row, cell + 1), sign * (x - cell))
    sharing = np.minimum(together, ride.slots - together * np.arange(rows))
    return np.cumsum(sums, 1)[:, :columns] / sharing[:, None]
