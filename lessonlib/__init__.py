"""The course's one shared library: workloads, schedulers, the Trace, the engine and the pictures."""

import os

__version__ = "1.0.0"

# Read by torch's thread pool when torch is first imported. Waiting threads that spin make every small operation
# wait for a busy neighbor: with one other process on two cores a decode step took ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
