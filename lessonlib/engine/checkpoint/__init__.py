"""From a name to weights: a Llama-architecture folder, a hub name, or the course's own model."""

from lessonlib.engine.checkpoint.config import LlamaConfig
from lessonlib.engine.checkpoint.weights import COURSE_MODEL, fill_random, load_weights, resolve, weight_files

__all__ = ["COURSE_MODEL", "LlamaConfig", "fill_random", "load_weights", "resolve", "weight_files"]
