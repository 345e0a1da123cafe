"""The pictures: the elevator widget and every plot, drawn from Traces or plain arrays alone."""

from lessonlib.viz.elevator import Elevator, Explorer, explorer
from lessonlib.viz.film import MemoryFilm

__all__ = ["Elevator", "Explorer", "MemoryFilm", "explorer"]
