"""Several policies on one workload, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lessonlib.metrics import metrics
from lessonlib.scheduling.policies import POLICIES, make_policy
from lessonlib.scheduling.policy import Policy
from lessonlib.simulation.costs import CostModel, Hardware
from lessonlib.simulation.simulator import simulate
from lessonlib.trace import Trace
from lessonlib.workload import Workload


def compare_policies(
    workload: Workload, policies: Iterable[Policy | str] | None = None, **options: Any
) -> list[dict[str, Any]]:
    """`metrics` of each policy on one workload, one row each.

    Args:
        policies: policies or their names; by default all of `POLICIES`.
        options: of `simulate`.
    """
    chosen = POLICIES if policies is None else policies
    return [metrics(simulate(workload, policy, **options)) for policy in chosen]


def simulate_on(
    workload: Workload,
    policies: Sequence[str],
    slots: int,
    blocks: int | None = None,
    block_size: int = 16,
    token_budget: int | None = None,
    hardware: str | None = None,
) -> list[Trace]:
    """A Trace for each named policy, from the options of a command line.

    Args:
        policies: names.
        blocks: K/V blocks, the null block included; 0: memory without limit; None: as many as fit beside the
            weights on `hardware`, or memory without limit if no hardware is named.
        hardware: such as "h100:llama-2-7b"; None: the clock counts steps.

    Raises:
        CourseError: for an unknown policy or hardware, before anything runs; and as `simulate` does.
    """
    made = [make_policy(name) for name in policies]
    machine = Hardware.parse(hardware) if hardware else None
    if blocks is None:
        blocks = machine.num_blocks(block_size) if machine else 0
    cost_model = CostModel.from_hardware(machine) if machine else None
    return [
        simulate(workload, policy, slots, blocks, block_size, token_budget, cost_model) for policy in made
    ]


TABLE_COLUMNS = (
    ("policy", "policy", ""),
    ("steps", "steps", ",d"),
    ("seconds", "seconds", ",.1f"),
    ("utilization", "util", ".1%"),
    ("tokens_per_second", "tok/s", ",.0f"),
    ("kv_utilization", "kv held", ".1%"),
    ("preemptions", "preempt", ",d"),
    ("recomputed_tokens", "recomputed", ",d"),
    ("rejected", "rejected", ",d"),
)


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of `compare_policies` as text, with p50 and p99 of the times to first token and between tokens."""
    unit = "seconds" if "seconds" in rows[0] else "steps"
    columns = [column for column in TABLE_COLUMNS if rows[0].get(column[0]) is not None]
    lines = [
        [title for _, title, _ in columns]
        + [f"{name} {q}" for name in ("ttft", "itl") for q in ("p50", "p99")]
    ]
    for row in rows:
        cells = [format(row[key], spec) for key, _, spec in columns]
        times = [row[f"{name}_{unit}"].get(q) for name in ("ttft", "itl") for q in ("p50", "p99")]
        lines.append(cells + [_format_time(time, unit) for time in times])
    return align(lines)


def align(lines: Sequence[Sequence[str]]) -> str:
    """Cells as a table for a terminal: the first column aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if not i else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _format_time(time: float | None, unit: str) -> str:
    if time is None:
        return "-"
    return f"{time:,.1f}" if unit == "steps" else f"{1000 * time:,.1f} ms"
