"""Schedulers without a model: a workload goes in, a step-cost model stands in for the work, a Trace comes out.

ride, SlotScheduler    slots.py         fixed slots, no memory: notebooks 01 and 02
simulate, Simulator    simulator.py     any policy over paged memory
CostModel, Hardware    costs.py         seconds of a step, from a datasheet or fitted to a Trace
compare_policies       compare.py       several policies side by side
pareto, goodput, …     decide.py        speed for one and for all, promises kept, who waits: what `viz.decide` draws
memory_shares          contiguous.py    memory in one piece a request, as before paging
Rehearsal              rehearsal.py     a scheduler with the interface of an engine
"""

from lessonlib.simulation.compare import (
    compare_policies,
    format_table,
    policy_table,
    predicted_lengths,
    rules_table,
    simulate_on,
)
from lessonlib.simulation.contiguous import (
    BuddyAllocator,
    contiguous_regions,
    contiguous_shares,
    memory_shares,
    paged_shares,
    reservations,
)
from lessonlib.simulation.costs import GPUS, MODELS, CostModel, Hardware
from lessonlib.simulation.rehearsal import Rehearsal
from lessonlib.simulation.simulator import Simulator, simulate
from lessonlib.simulation.slots import SlotScheduler, ride

__all__ = [
    "GPUS",
    "MODELS",
    "BuddyAllocator",
    "CostModel",
    "Hardware",
    "Rehearsal",
    "Simulator",
    "SlotScheduler",
    "compare_policies",
    "contiguous_regions",
    "contiguous_shares",
    "format_table",
    "memory_shares",
    "paged_shares",
    "policy_table",
    "predicted_lengths",
    "reservations",
    "ride",
    "rules_table",
    "simulate",
    "simulate_on",
]
