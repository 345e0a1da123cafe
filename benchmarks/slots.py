"""The event-driven slot scheduler against loops that look at every slot in every step.

    python -m benchmarks.slots --trace FILE [--out FOLDER]

Lengths are those of the trace; all requests wait at the start. Three loops stand beside the event-driven form:
release, admit and step as three passes over the slots (notebook 02's first form), the three fused into one pass
(the tightest loop that plain Python allows), and the course's `SlotScheduler`, the only loop of the three that
also writes the Trace, as the event-driven form does.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.record import record
from lessonlib.simulation.slots import SlotScheduler, ride
from lessonlib.workload import Workload, azure_lengths, read_trace

SLOTS = (8, 64, 256)
TARGETS = {8: 100, 256: 40}
MILLION = 1_000_000
DEFAULT_TRACE = Path(__file__).parents[2] / "shared" / "data" / "azure_llm_2023_conv.csv"


def three_pass_loop(lengths: list[int], slots: int) -> tuple[int, int]:
    """Steps and tokens by release, admit, step, each a pass over every slot; no Trace is kept."""
    occupant: list[int | None] = [None] * slots
    remaining = [0] * slots
    boarded = done = steps = tokens = 0
    while True:
        for slot in range(slots):
            if occupant[slot] is not None and remaining[slot] == 0:
                occupant[slot] = None
                done += 1
        if done == len(lengths):
            return steps, tokens
        for slot in range(slots):
            if occupant[slot] is None and boarded < len(lengths):
                occupant[slot], remaining[slot] = boarded, lengths[boarded]
                boarded += 1
        for slot in range(slots):
            if occupant[slot] is not None:
                remaining[slot] -= 1
                tokens += 1
        steps += 1


def fused_loop(lengths: list[int], slots: int) -> tuple[int, int]:
    """The same in one pass over the slots a step."""
    remaining = [0] * slots
    boarded = steps = tokens = 0
    while True:
        active = 0
        for slot in range(slots):
            if remaining[slot] == 0 and boarded < len(lengths):
                remaining[slot] = lengths[boarded]
                boarded += 1
            if remaining[slot]:
                remaining[slot] -= 1
                active += 1
        if not active:
            return steps, tokens
        tokens += active
        steps += 1


def seconds(call: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Best of `repeats` runs, and what the call gave."""
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        result = call()
        best = min(best, time.perf_counter() - started)
    return best, result


def compare(workload: Workload, slots: int) -> dict[str, Any]:
    """All three on one workload, one after another, and whether they agree."""
    lengths = workload.output_tokens.tolist()
    three_pass, counted = seconds(lambda: three_pass_loop(lengths, slots), 3)
    fused, recounted = seconds(lambda: fused_loop(lengths, slots), 3)
    stepped, by_step = seconds(lambda: SlotScheduler(workload, slots).run(), 1)
    event, by_event = seconds(lambda: ride(workload, slots), 9)
    assert by_step.same_ride(by_event)
    assert counted == recounted == (by_event.num_steps, by_event.tokens)
    return {
        "seconds": {
            "three_pass": three_pass,
            "fused": fused,
            "slot_scheduler": stepped,
            "event_driven": event,
        },
        "times_faster_than": {
            "three_pass": three_pass / event,
            "fused": fused / event,
            "slot_scheduler": stepped / event,
        },
    }


def measure(path: Path) -> dict[str, Any]:
    """The table of the three slot counts, and the million."""
    lengths = Workload.from_lengths(read_trace(path).output_tokens)
    table = {slots: compare(lengths, slots) for slots in SLOTS}
    million = Workload.from_lengths(azure_lengths(MILLION))
    million_s, _ = seconds(lambda: ride(million, 256), 5)
    loops = table[256]["seconds"]
    return {
        "trace_requests": len(lengths),
        "slots": table,
        "million_requests_256_slots_s": million_s,
        "met": {
            f"at least {times} times at {slots} slots": {
                loop: ratio >= times for loop, ratio in table[slots]["times_faster_than"].items()
            }
            for slots, times in TARGETS.items()
        }
        | {
            "a million in no more time than the trace takes": {
                k: million_s <= loops[k] for k in ("three_pass", "fused", "slot_scheduler")
            }
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", type=Path, default=DEFAULT_TRACE)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = measure(options.trace)
    print(json.dumps(result, indent=1))
    if options.out:
        print(record("slots", result, options.out))


if __name__ == "__main__":
    main()
