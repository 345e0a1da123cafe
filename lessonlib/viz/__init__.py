"""The pictures: the elevator widget and every plot, drawn from Traces or plain arrays alone."""

from lessonlib.viz.elevator import Elevator, Explorer, explorer

__all__ = ["Elevator", "Explorer", "explorer"]
