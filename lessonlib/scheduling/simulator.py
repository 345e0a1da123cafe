"""Any policy against a step-cost model: a Workload goes in, a Trace comes out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from typing import Any

import numpy as np

from lessonlib.errors import CourseError
from lessonlib.scheduling.costs import CostModel, Hardware, computed_runs, prefill_tokens
from lessonlib.scheduling.policies import POLICIES, make_policy
from lessonlib.scheduling.policy import Policy
from lessonlib.scheduling.request import RequestRejectedError
from lessonlib.scheduling.scheduler import Scheduler, StepPlan
from lessonlib.trace import PERCENTILES, Kind, Trace
from lessonlib.workload import Workload


class Simulator:
    """Drives a Scheduler as an engine would, with a cost model in place of a model.

    Args:
        workload: requests; arrivals in steps without a cost model, in seconds with one.
        scheduler: made for it; `simulate` makes one.
        cost_model: seconds of each step; None: every step takes one tick.
        prompts: token ids of each prompt, for prefix caching; without them only lengths are known.
        max_tokens: what the scheduler is told of each answer's length, in place of the length itself.
        salts: a tenant's name for each request.
    """

    def __init__(
        self,
        workload: Workload,
        scheduler: Scheduler,
        cost_model: CostModel | None = None,
        prompts: Sequence[Sequence[int]] | None = None,
        max_tokens: int | None = None,
        salts: Sequence[str] = (),
    ) -> None:
        check_unit(workload, cost_model)
        self.workload, self.scheduler, self.cost_model = workload, scheduler, cost_model
        self.prompts, self.salts = check_prompts(workload, prompts), salts
        self.limits, self.max_tokens = workload.output_tokens.tolist(), max_tokens
        if max_tokens is not None and max_tokens < max(self.limits):
            raise CourseError(
                f"max_tokens {max_tokens}, but a request wants {max(self.limits)}: give at least that"
            )
        arrivals = workload.arrival_time if cost_model else np.ceil(workload.arrival_time)
        self.arrivals: list[float] = arrivals.tolist()
        self.lengths: list[int] = np.maximum(workload.prompt_tokens, 1).tolist()
        self.priorities: list[int] = workload.priority.tolist()
        self.arrived = 0
        self.now = 0.0

    def run(self) -> Trace:
        """Ride until everyone is home or was refused."""
        while self.arrived < len(self.workload) or self.scheduler.has_unfinished:
            if self.cost_model and not self.scheduler.has_unfinished:
                self.now = max(self.now, self.arrivals[self.arrived])
            self.receive()
            if self.scheduler.has_unfinished or self.arrived < len(self.workload):
                self.step()
        return self.scheduler.build_trace()

    def receive(self) -> None:
        """Everyone who has arrived by now joins the queue; whoever can never fit is refused."""
        while self.arrived < len(self.workload) and self.arrivals[self.arrived] <= self.now:
            row, self.arrived = self.arrived, self.arrived + 1
            self.scheduler.still_to_come = len(self.workload) - self.arrived
            try:
                self.scheduler.add_request(
                    str(row),
                    self.prompts[row] if self.prompts else self.lengths[row],
                    self.max_tokens or self.limits[row],
                    priority=self.priorities[row],
                    salt=self.salts[row] if self.salts else "",
                    arrival_time=self.arrivals[row],
                )
            except RequestRejectedError:
                continue  # the Trace has it

    def step(self) -> None:
        """One step: plan, pretend to compute, report."""
        plan = self.scheduler.schedule()
        duration = self._duration(plan)
        tokens = dict.fromkeys(plan.sampled_ids, 0)
        self.scheduler.update(plan, tokens, self._stopped(plan), start=self.now, duration=duration)
        self.now += duration

    def _duration(self, plan: StepPlan) -> float:
        if plan.decodes or plan.prefills:
            return self.cost_model.seconds(plan) if self.cost_model else 1.0
        if self.arrived == len(self.workload):
            name, left = self.scheduler.policy.name, len(self.scheduler.requests)
            raise CourseError(
                f"policy {name!r} leaves {left} requests waiting for ever: let it schedule someone"
            )
        return self.arrivals[self.arrived] - self.now if self.cost_model else 1.0

    def _stopped(self, plan: StepPlan) -> list[str]:
        """Those whose answer ends here, although they might have asked for more."""
        if self.max_tokens is None:
            return []
        rows = (row.request for row in plan.sampled_rows)
        return [
            request.id for request in rows if request.num_output_tokens + 1 == self.limits[int(request.id)]
        ]


def simulate(
    workload: Workload,
    policy: Policy | str = "vllm",
    slots: int = 8,
    num_blocks: int = 0,
    block_size: int = 16,
    token_budget: int | None = None,
    cost_model: CostModel | None = None,
    *,
    max_model_len: int | None = None,
    free_prefill: bool = False,
    prefix_caching: bool = False,
    hash_seed: bytes | int | None = None,
    prompts: Sequence[Sequence[int]] | None = None,
    max_tokens: int | None = None,
    salts: Sequence[str] = (),
) -> Trace:
    """One workload under one policy.

    Args:
        workload: requests with arrivals in steps, or in seconds where there is a cost model. A prompt of 0
            tokens counts as 1, the token that starts a text.
        policy: a `Policy` or the name of one.
        slots, num_blocks, block_size, token_budget, prefix_caching, hash_seed, free_prefill: see `Scheduler`.
        cost_model: seconds of each step; without one the clock ticks steps.
        max_model_len: longest prompt and answer together; by default the workload's longest.
        prompts, max_tokens, salts: see `Simulator`.

    Returns:
        The Trace, its clock in steps or seconds.

    Raises:
        CourseError: for sizes that nothing could run with, or arrivals in another unit.
    """
    longest = int((np.maximum(workload.prompt_tokens, 1) + workload.output_tokens).max())
    scheduler = Scheduler(
        slots,
        num_blocks,
        block_size,
        token_budget,
        make_policy(policy) if isinstance(policy, str) else policy,
        max_model_len=max_model_len or max(longest, 2, (max_tokens or 0) + int(workload.prompt_tokens.max())),
        prefix_caching=prefix_caching,
        hash_seed=hash_seed,
        free_prefill=free_prefill,
        clock="seconds" if cost_model else "steps",
        maker="simulator",
    )
    return Simulator(workload, scheduler, cost_model, prompts, max_tokens, salts).run()


def check_unit(workload: Workload, cost_model: CostModel | None) -> None:
    """Raises `CourseError` where the workload's arrivals and the clock do not go together."""
    together = not workload.arrival_time.any()
    if cost_model and workload.time_unit != "seconds" and not together:
        raise CourseError(
            f"arrivals are in {workload.time_unit}, a cost model needs seconds: give arrivals in seconds"
        )
    if not cost_model and workload.time_unit != "steps" and not together:
        raise CourseError(f"arrivals are in {workload.time_unit}: bring them to steps with Workload.in_steps")


def check_prompts(
    workload: Workload, prompts: Sequence[Sequence[int]] | None
) -> Sequence[Sequence[int]] | None:
    """The prompts themselves, or a `CourseError` where their lengths are not the workload's."""
    if prompts is None:
        return None
    lengths = [len(prompt) for prompt in prompts]
    if lengths != workload.prompt_tokens.tolist():
        raise CourseError(
            "the prompts' lengths are not the workload's: make it with Workload.from_lengths of them"
        )
    return prompts


# ----- what came of it -----


def metrics(trace: Trace) -> dict[str, Any]:
    """The numbers of a ride, ready for JSON: those of `Trace.summary`, memory, and times between tokens.

    Added keys: seconds and tokens_per_second (where the clock is in seconds), preemptions, recomputed_tokens,
    prefill_tokens (those computed again included), cached_tokens, kv_utilization (blocks held ÷ blocks there
    are, mean over time), peak_blocks, rejected, finished, and `itl_seconds` or `itl_steps`: percentiles of
    the time from one token of a request to its next. Memory's numbers are None where it is not modeled.
    """
    unit = trace.header.clock
    span = trace.span
    return {
        **trace.summary(),
        **(
            {"seconds": span, "tokens_per_second": trace.tokens / span if span else 0.0}
            if unit == "seconds"
            else {}
        ),
        f"itl_{unit}": inter_token_latency(trace),
        "finished": len(trace.rows(Kind.FINISH)["step"]),
        "rejected": len(trace.rows(Kind.REJECT)["step"]),
        "preemptions": len(trace.rows(Kind.PREEMPT)["step"]),
        "prefill_tokens": int(prefill_tokens(trace).sum()),
        "recomputed_tokens": recomputed_tokens(trace),
        "cached_tokens": int(trace.rows(Kind.BOARD)["tokens"].sum()),
        **_memory_metrics(trace),
    }


def _memory_metrics(trace: Trace) -> dict[str, Any]:
    if not trace.header.num_blocks or not trace.num_steps:
        return {"kv_utilization": None, "peak_blocks": None}
    capacity = trace.header.num_blocks - 1
    held = capacity - trace.steps["free_blocks"]
    time = trace.steps["duration"].sum()
    return {
        "kv_utilization": round(float((held * trace.steps["duration"]).sum() / (capacity * time)), 6),
        "peak_blocks": int(held.max()),
    }


def recomputed_tokens(trace: Trace) -> int:
    """Tokens that were computed again after a preemption. Those found in the prefix cache were not."""
    again = set(trace.rows(Kind.PREEMPT)["request"].tolist())
    furthest = dict.fromkeys(again, 0)
    total = 0
    for run in computed_runs(trace):
        if run.request in again:
            end = run.stored + run.steps * run.tokens
            total += max(0, min(end, furthest[run.request]) - run.stored)
            furthest[run.request] = max(end, furthest[run.request])
    return total


def inter_token_latency(trace: Trace) -> dict[str, float]:
    """Percentiles of the time from one token of a request to its next, over all tokens but the first ones."""
    ends = trace.steps["start"] + trace.steps["duration"]
    decode = trace.rows(Kind.DECODE)
    request, first, tokens = decode["request"], decode["step"], decode["tokens"]
    last = first + tokens - 1
    running = np.zeros(trace.num_steps + 1, np.int64)  # tokens whose request also got one in the step before
    np.add.at(running, first + 1, 1)
    np.add.at(running, last + 1, -1)
    same = request[1:] == request[:-1]
    pauses = (ends[first[1:]] - ends[last[:-1]])[same]
    gaps = np.concatenate([np.diff(ends, prepend=0.0), pauses])
    counts = np.concatenate([np.cumsum(running)[:-1], np.ones(len(pauses), np.int64)])
    return weighted_percentiles(gaps, counts)


def weighted_percentiles(values: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """As `trace.percentiles` of each value repeated `counts` times, without repeating it."""
    total = int(counts.sum())
    if not total:
        return {}
    order = np.argsort(values, kind="stable")
    values, up_to = values[order], np.cumsum(counts[order])
    answer = {}
    for q in PERCENTILES:
        place = q / 100 * (total - 1)
        low, high = (values[np.searchsorted(up_to, rank, side="right")] for rank in (int(place), ceil(place)))
        answer[f"p{q}"] = float(low + (high - low) * (place - int(place)))
    return answer


# ----- side by side -----


def compare_policies(
    workload: Workload, policies: Iterable[Policy | str] | None = None, **options: Any
) -> list[dict[str, Any]]:
    """`metrics` of each policy on one workload, one row each. `options` are those of `simulate`."""
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
    """A Trace for each named policy, from the words of a command line.

    Args:
        blocks: K/V blocks, the null block included; 0: memory is no question; None: what fits beside the
            weights on the hardware, or no question where none is named.
        hardware: such as "h100:llama-2-7b"; None: the clock ticks steps.

    Raises:
        CourseError: for an unknown policy or hardware, before anything runs; and as `simulate` does.
    """
    riders = [make_policy(name) for name in policies]
    machine = Hardware.parse(hardware) if hardware else None
    if blocks is None:
        blocks = machine.num_blocks(block_size) if machine else 0
    cost_model = CostModel.from_hardware(machine) if machine else None
    return [
        simulate(workload, rider, slots, blocks, block_size, token_budget, cost_model) for rider in riders
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
    """The rows of `compare_policies` as text, with p50 and p99 of time to first token and between tokens."""
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
    """Cells as a table for a terminal: the first column to the left, the others to the right."""
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
