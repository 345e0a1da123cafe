"""The course's one shared library: workloads, schedulers, the Trace, the engine and the pictures."""

__version__ = "1.0.0"
