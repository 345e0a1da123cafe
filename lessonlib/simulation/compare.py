"""Several policies on one workload, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lessonlib.errors import CourseError
from lessonlib.metrics import metrics
from lessonlib.scheduling.policies import POLICIES, make_policy
from lessonlib.scheduling.policy import Policy
from lessonlib.scheduling.rules import rule_cells
from lessonlib.simulation.costs import CostModel, Hardware
from lessonlib.simulation.simulator import simulate
from lessonlib.tables import Table, align
from lessonlib.trace import HeldBy, Trace
from lessonlib.workload import Workload

ORACLE = ", told each length"  # added to the name of a policy that knows what no server knows


def compare_policies(
    workload: Workload,
    policies: Iterable[Policy | str] | None = None,
    max_tokens: int | None = None,
    oracle: bool = False,
    **options: Any,
) -> list[dict[str, Any]]:
    """`metrics` of each policy on one workload, one row each. All know the same.

    Args:
        policies: policies or their names; by default all of `POLICIES`.
        max_tokens: the limit that every request gives; by default the workload's longest answer. How long an answer
            will be before that, no policy knows.
        oracle: whether each request's limit is instead its answer's own length, as if there were an oracle. The
            rows say so in their names.
        options: of `simulate`.
    """
    chosen = POLICIES if policies is None else policies
    limit = None if oracle else max_tokens or longest_answer(workload)
    rows = [metrics(simulate(workload, policy, max_tokens=limit, **options)) for policy in chosen]
    return [{**row, "policy": row["policy"] + ORACLE} for row in rows] if oracle else rows


def longest_answer(workload: Workload) -> int:
    """The tokens of the workload's longest answer."""
    return int(workload.output_tokens.max())


def predicted_lengths(workload: Workload, error: float, seed: int = 0) -> dict[str, float]:
    """Predictions of each answer's length, by request id: the length times e to a normal draw.

    Args:
        error: the standard deviation of the draw: with 0.5, two of three predictions lie between 0.6 and 1.65 times
            the length; 0 is an oracle.

    Raises:
        CourseError: for an error below 0.
    """
    if error < 0:
        raise CourseError(f"a predictor with error {error}: give 0 or more")
    draws = np.random.default_rng(seed).normal(0.0, error, len(workload))
    return {str(row): float(length) for row, length in enumerate(workload.output_tokens * np.exp(draws))}


def simulate_on(
    workload: Workload,
    policies: Sequence[str],
    slots: int,
    blocks: int | None = None,
    block_size: int = 16,
    token_budget: int | None = None,
    hardware: str | None = None,
    max_tokens: int | None = None,
) -> list[Trace]:
    """A Trace for each named policy, from the options of a command line.

    Args:
        policies: names.
        blocks: K/V blocks, the null block included; 0: memory without limit; None: as many as fit beside the
            weights on `hardware`, or memory without limit if no hardware is named.
        hardware: such as "h100:llama-2-7b"; None: the clock counts steps.
        max_tokens: the limit that every request gives; by default the workload's longest answer.

    Raises:
        CourseError: for an unknown policy or hardware, before anything runs; and as `simulate` does.
    """
    made = [make_policy(name) for name in policies]
    machine = Hardware.parse(hardware) if hardware else None
    if blocks is None:
        blocks = machine.num_blocks(block_size) if machine else 0
    cost_model = CostModel.from_hardware(machine) if machine else None
    limit = max_tokens or longest_answer(workload)
    return [
        simulate(workload, policy, slots, blocks, block_size, token_budget, cost_model, max_tokens=limit)
        for policy in made
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


def reason_cells(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The titles, then for each row of `compare_policies` its steps with a queue and the reasons' shares of them."""
    reasons = [
        name for name in map(str.lower, HeldBy.__members__) if any(name in row["held_by"] for row in rows)
    ]
    lines = [["policy", "with a queue", *(name.replace("_", " ") for name in reasons)]]
    for row in rows:
        shares = [f"{row['held_by'][name]:.1%}" if name in row["held_by"] else "-" for name in reasons]
        lines.append([row["policy"], f"{row['steps_with_queue']:,}", *shares])
    return lines


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of `compare_policies` as text for a terminal."""
    return align(table_cells(rows))


def rules_table() -> Table:
    """Every server's rule by server and version, for a notebook."""
    return Table(rule_cells())


def policy_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The same for a notebook, which lays it out."""
    return Table(table_cells(rows))


def table_cells(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The titles, then the cells of each row, with p50 and p99 of the times to first token and between tokens."""
    unit = "seconds" if "seconds" in rows[0] else "steps"
    columns = [column for column in TABLE_COLUMNS if rows[0].get(column[0]) is not None]
    lines = [
        [title for _, title, _ in columns]
        + [f"{name} {q}" for name in ("ttft", "itl") for q in ("p50", "p99")]
    ]
    for row in rows:
        cells = ["-" if row[key] is None else format(row[key], spec) for key, _, spec in columns]
        times = [row[f"{name}_{unit}"].get(q) for name in ("ttft", "itl") for q in ("p50", "p99")]
        lines.append(cells + [_format_time(time, unit) for time in times])
    return lines


def _format_time(time: float | None, unit: str) -> str:
    if time is None:
        return "-"
    return f"{time:,.1f}" if unit == "steps" else f"{1000 * time:,.1f} ms"
