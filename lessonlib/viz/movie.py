"""The elevator for slides: every moment of a ride as a frame of a GIF or an MP4."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.animation import AbstractMovieWriter, FFMpegWriter, PillowWriter
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from tqdm import tqdm

from lessonlib.errors import CourseError
from lessonlib.viz import keyframes, style
from lessonlib.viz.gantt import draw_gantt, gantt_height, tidy_gantt_axis
from lessonlib.viz.ride import Ride

GROUND = "white"
SIDE_BY_SIDE = 3  # cars in a row
MOST_FRAMES = 1500


def write_gif(rides: Sequence[Ride], title: str, path: Path, seconds: float, fps: float) -> Path:
    """A GIF that goes round and round. Raises as `write_mp4` does."""
    return _write(rides, title, path, seconds, fps, ".gif")


def write_mp4(rides: Sequence[Ride], title: str, path: Path, seconds: float, fps: float) -> Path:
    """An H.264 film that slides and browsers play.

    Raises `CourseError` for no steps, a length or rate that is none, more frames than `MOST_FRAMES`, and a name
    that does not end as the format does.
    """
    return _write(rides, title, path, seconds, fps, ".mp4")


def _ffmpeg() -> str:
    """The FFmpeg of `imageio-ffmpeg` or of the machine. Raises `CourseError` where there is neither."""
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        if program := shutil.which("ffmpeg"):
            return program
    raise CourseError("an MP4 needs FFmpeg: `pip install imageio-ffmpeg`, or make a GIF, which needs nothing")


def _write(rides: Sequence[Ride], title: str, path: Path, seconds: float, fps: float, ending: str) -> Path:
    if path.suffix.lower() != ending:
        raise CourseError(f"{path.name}: the name of this film ends in {ending}")
    times = _moments(rides, seconds, fps)
    fps = len(times) / seconds
    writer: AbstractMovieWriter
    if ending == ".gif":
        writer = PillowWriter(fps=max(1, round(fps)))
    else:
        # Players want pixels in fours of one color, so both sides are made even.
        even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2:color=white"]
        writer = FFMpegWriter(
            fps=fps,  # type: ignore[arg-type]  # any positive number, says FFmpeg
            codec="libx264",
            extra_args=["-pix_fmt", "yuv420p", *even],
        )
    program: Any = {} if ending == ".gif" else {"animation.ffmpeg_path": _ffmpeg()}
    with style.applied(), mpl.rc_context(program):
        scene = _Scene(rides, title)
        with writer.saving(scene.figure, str(path), style.DPI):
            for time in tqdm(times, desc=path.name, unit="frame"):
                scene.show(time)
                writer.grab_frame(facecolor=GROUND)
    return path


def _moments(rides: Sequence[Ride], seconds: float, fps: float) -> list[float]:
    """When the frames are: evenly over the longest ride, and no more than it has steps; everyone home at the end."""
    if not (seconds > 0 and fps > 0):
        raise CourseError(f"a film of {seconds:g} seconds at {fps:g} frames a second: both must be above 0")
    longest = max(rides, key=lambda ride: ride.times[-1])
    if not longest.num_steps:
        raise CourseError("no steps, so there is nothing to film")
    frames = min(max(2, round(seconds * fps)), longest.num_steps + 1)
    if frames > MOST_FRAMES:
        raise CourseError(
            f"{frames:,} frames, more than are drawn ({MOST_FRAMES:,}): film fewer seconds or frames"
        )
    steps = np.linspace(0, longest.num_steps, frames).round().astype(int)
    return [float(longest.times[step]) for step in steps]


class _Scene:
    """The cars of all rides over their slots' timelines, at one moment after another."""

    def __init__(self, rides: Sequence[Ride], title: str) -> None:
        self.rides = rides
        columns = min(len(rides), SIDE_BY_SIDE)
        lines = -(-len(rides) // columns)
        car = 1.5 * max(keyframes.car_height(ride.slots) for ride in rides)
        floor = 0.3 + 1.5 * keyframes.MEMORY_TALL if any(ride.capacity for ride in rides) else 0.01
        below = gantt_height(rides)
        self.figure = style.picture((0.4 if title else 0.1) + lines * (car + floor) + below, "", width=7.2)
        grid = self.figure.add_gridspec(
            2 * lines + 1, columns, height_ratios=[*([car, floor] * lines), below]
        )
        self.cars: list[tuple[Axes, Axes]] = []
        for place in range(len(rides)):
            line, column = divmod(place, columns)
            self.cars.append(
                (
                    self.figure.add_subplot(grid[2 * line, column]),
                    self.figure.add_subplot(grid[2 * line + 1, column]),
                )
            )
        self.gantt = self.figure.add_subplot(grid[2 * lines, :])
        draw_gantt(self.gantt, rides)
        tidy_gantt_axis(self.gantt, rides)
        self.end = self.gantt.get_xlim()[1]
        low, high = self.gantt.get_ylim()
        self.to_come = Rectangle((0, low), self.end, high - low, facecolor=GROUND, alpha=0.6, zorder=8)
        self.gantt.add_patch(self.to_come)
        self.now = self.gantt.axvline(0, color=style.INK, linewidth=1.2, zorder=9)
        if title:
            style.finish(self.figure, title)
        self.show(0.0)
        self.figure.canvas.draw()
        self.figure.set_layout_engine("none")  # or every frame would be laid out again, and tremble

    def show(self, time: float) -> None:
        for ride, (car, floor) in zip(self.rides, self.cars, strict=True):
            for axes in (car, floor):
                axes.clear()
                axes.set_axis_off()
            keyframes.draw_car(car, ride, time, named=True)
            if ride.capacity:
                keyframes.draw_memory(floor, ride, time)
        self.to_come.set(x=time, width=max(0.0, self.end - time))
        self.now.set_xdata([time, time])
