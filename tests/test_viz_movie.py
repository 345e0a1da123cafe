"""Films for slides: real files, read back."""

from __future__ import annotations

import imageio_ffmpeg
import pytest
from PIL import Image
from test_viz import empty, fifo
from test_viz_memory import crowded

from lessonlib.errors import CourseError
from lessonlib.viz import Elevator


def two() -> Elevator:
    lengths = [3, 9, 2, 5]
    return Elevator({"static": fifo(lengths, 2, "static"), "continuous": fifo(lengths, 2)}, "Two elevators")


def test_a_gif_goes_round_with_a_frame_a_step_at_most(tmp_path, capsys) -> None:
    path = two().to_gif(tmp_path / "ride.gif", seconds=3, fps=10)
    with Image.open(path) as film:
        assert film.n_frames == 15  # 14 steps, and everyone home
        assert film.info["loop"] == 0
        assert film.info["duration"] == 200
        frames = []
        for place in (0, 7, 14):
            film.seek(place)
            frames.append(film.convert("RGB").tobytes())
    assert len(set(frames)) == 3
    assert "ride.gif: 100%" in capsys.readouterr().err


def test_an_mp4_plays_everywhere(tmp_path) -> None:
    path = Elevator(crowded(), "Memory is short").to_mp4(tmp_path / "ride.mp4", seconds=2, fps=5)
    frames = imageio_ffmpeg.read_frames(str(path))
    about = next(frames)
    assert about["codec"] == "h264"
    assert about["pix_fmt"].startswith("yuv420p")
    assert about["duration"] == pytest.approx(2, abs=0.2)
    pictures = list(frames)
    assert len(pictures) == 10
    assert len(set(pictures)) == 10


@pytest.mark.parametrize(
    ("film", "message"),
    [
        (lambda path: two().to_gif(path / "ride.mp4"), "ride.mp4: the name of this film ends in .gif"),
        (lambda path: two().to_gif(path / "ride.gif", seconds=0), "0 seconds at 10 frames"),
        (lambda path: Elevator(empty()).to_mp4(path / "ride.mp4"), "no steps"),
        (
            lambda path: Elevator(fifo([3000], 1)).to_mp4(path / "ride.mp4", seconds=200, fps=10),
            "2,000 frames, more than are drawn",
        ),
    ],
)
def test_what_cannot_be_filmed_is_said_and_leaves_no_file(film, message: str, tmp_path) -> None:
    with pytest.raises(CourseError, match=message):
        film(tmp_path)
    assert not list(tmp_path.iterdir())
