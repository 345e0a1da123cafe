"""The pictures: the elevator widget and every plot, drawn from Traces or plain arrays alone."""

from lessonlib.viz.elevator import Elevator, Explorer, explorer
from lessonlib.viz.feedback import play
from lessonlib.viz.film import MemoryFilm
from lessonlib.viz.live import LiveElevator

__all__ = ["Elevator", "Explorer", "LiveElevator", "MemoryFilm", "explorer", "play"]
