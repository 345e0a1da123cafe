"""`lesson simulate`."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import click

from lessonlib.cli.command import DONE, Command, given_of, seed_from_zero
from lessonlib.errors import CourseError
from lessonlib.files import write_whole
from lessonlib.trace import Trace
from lessonlib.workload import (
    DISTRIBUTION_SPECS,
    Workload,
    azure_prompts,
    draw_lengths,
    poisson_arrivals,
    read_trace,
)

NOT_COUNTED = "not counted here"
PERCENTILES = "p50, p90 and p99: half, 90% and 99% of them took at most this long."
# What a key of `metrics` means. Times come in two units, so that theirs stand here without it.
MEANINGS = {
    "policy": "the rule by which requests are scheduled",
    "slots": "requests that can be computed at once",
    "requests": "in the workload",
    "steps": "times that the whole batch was computed",
    "tokens": "output tokens of all requests",
    "utilization": "output tokens ÷ (slots × steps): 1 is a full batch at every step",
    "slots_in_use": "slots in use ÷ all slots, mean over the steps, prompts included",
    "ttft": "time to first token, from a request's arrival",
    "latency": "time from a request's arrival to its last token",
    "itl": "inter-token latency (its mean is TPOT): from one token to the next",
    "seconds": "predicted time, from the first step to the end of the last",
    "tokens_per_second": "output tokens ÷ seconds",
    "finished": "requests that got all their tokens",
    "rejected": "requests that can never fit into memory",
    "preemptions": "times that a running request gave its memory up and waits again",
    "prefill_tokens": "prompt tokens computed, repeats included; 0 where prompts take no time",
    "recomputed_tokens": "tokens computed a second time, after a preemption",
    "cached_tokens": "prompt tokens found in memory, not computed",
    "kv_utilization": "K/V blocks in use ÷ all blocks, mean over time; --blocks sets how many there are",
    "peak_blocks": "most K/V blocks in use at once",
    "steps_with_queue": "steps in which a request waits",
    "held_by": "why the first in the queue was not admitted, as shares of these steps",
    "most_blocks_short": "most K/V blocks that were missing to admit the first in the queue",
}
REASONS = {
    "unknown": "not recorded",
    "slots": "every slot is taken",
    "batch": "a slot is free; the policy waits for the running batch to end",
    "more_requests": "a slot is free; the policy waits for more requests to wait",
    "policy": "a slot is free; the policy waits for something else",
    "budget": "the step has no tokens left for the prompt",
    "blocks": "too few K/V blocks are free",
    "preemption": "memory ran short in this step and requests were preempted, so none is admitted",
}


@click.command(
    cls=Command,
    short_help="schedule a workload without a model, and count steps",
    example="lesson simulate --policy static --slots 8 --dist azure",
)
@click.option("--policy", default="continuous", help="A name, several with commas, or all.")
@click.option("--slots", type=int, default=8, help="Requests on board at once.")
@click.option("--lengths", help="Output lengths, e.g. 3,5,7.")
@click.option("--trace", metavar="FILE", help="A CSV with TIMESTAMP, ContextTokens, GeneratedTokens.")
@click.option("--dist", help=f"A distribution: {DISTRIBUTION_SPECS}.")
@click.option("--requests", type=int, default=1000, help="How many to draw with --dist.")
@click.option("--seed", type=int, default=0, callback=seed_from_zero, help="Of the draws.")
@click.option(
    "--arrivals",
    default="together",
    help="together, trace, or poisson:RATE (a step; a second with --hardware).",
)
@click.option("--step-ms", type=float, default=25.0, help="Length of a step with --arrivals trace.")
@click.option("--fill", is_flag=True, help="static: wait for a full car.")
@click.option("--blocks", type=int, help="K/V blocks, the null block included.", show_default="no limit")
@click.option("--block-size", type=int, default=16, help="Tokens a block.")
@click.option("--token-budget", type=int, help="Tokens a step may compute.", show_default="no limit")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    help="The limit that every request gives, whatever its answer.",
    show_default="the longest answer",
)
@click.option("--hardware", metavar="GPU:MODEL", help="Predict seconds, e.g. h100:llama-2-7b.")
@click.option("--save", metavar="FILE", help="Write the Trace as JSON (.gz: compressed).")
@click.option("--plot", metavar="FILE", help="Draw it, or all policies side by side, as a PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def simulate(**given: Any) -> int:
    """Schedule a workload without a model, and count what it takes.

    Give one of --lengths, --trace and --dist.
    """
    from lessonlib.metrics import metrics

    options = SimpleNamespace(**given)
    traces = _traces(options)
    rows = [metrics(trace) for trace in traces]
    if options.save:
        _only(traces, "--save").save(options.save)
    if options.plot:
        _plot(traces, rows, options.plot)
    if options.as_json:
        print(json.dumps(rows[0] if len(rows) == 1 else rows, indent=1))
    else:
        print(_explained(rows[0]) if len(rows) == 1 else _compared(rows))
    return DONE


def _traces(options: SimpleNamespace) -> list[Trace]:
    """One Trace a policy: by the slot scheduler where memory and prompts are no question, else by the Scheduler."""
    from lessonlib.scheduling.policies import POLICIES
    from lessonlib.simulation import slots
    from lessonlib.simulation.compare import simulate_on

    names = list(POLICIES) if options.policy == "all" else options.policy.split(",")
    workload = _arriving(_requests(options), options)
    costs = options.blocks is not None or options.token_budget is not None or options.hardware is not None
    if options.fill and names != [slots.STATIC]:
        raise CourseError(
            f"--fill with policy {options.policy}: only static waits for a full car, leave it out"
        )
    if not costs and set(names) <= set(slots.SLOT_POLICIES):
        return [slots.ride(workload, options.slots, name, fill=options.fill) for name in names]
    if options.fill:
        raise CourseError(
            "--fill is for the static policy with no memory, budget or hardware given: leave it out"
        )
    return simulate_on(
        workload,
        names,
        options.slots,
        options.blocks,
        options.block_size,
        options.token_budget,
        options.hardware,
        options.max_tokens,
    )


def _only(traces: list[Trace], option: str) -> Trace:
    if len(traces) > 1:
        raise CourseError(f"{option} takes one ride, here are {len(traces)}: name one policy")
    return traces[0]


# ----- the workload -----


def _requests(options: SimpleNamespace) -> Workload:
    sources = given_of({"--lengths": options.lengths, "--trace": options.trace, "--dist": options.dist})
    if not sources:
        raise CourseError("no requests: give --lengths 3,5,7, --dist azure or --trace FILE")
    if len(sources) > 1:
        raise CourseError(f"{' and '.join(sources)}: give one of them")
    if options.trace is not None:
        return read_trace(options.trace)
    if options.dist is not None:
        lengths = draw_lengths(options.dist, options.requests, options.seed)
        return Workload.from_lengths(lengths, azure_prompts(options.requests, options.seed))
    return Workload.from_lengths(_whole_numbers(options.lengths))


def _whole_numbers(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    try:
        return [int(word) for word in words]
    except ValueError:
        raise CourseError(f"cannot read lengths {text!r}: give whole numbers, e.g. 3,5,7") from None


def _arriving(workload: Workload, options: SimpleNamespace) -> Workload:
    kind, _, rate = options.arrivals.partition(":")
    if kind == "together" and not rate:
        return Workload.from_lengths(workload.output_tokens, workload.prompt_tokens)
    if kind == "trace" and not rate:
        if options.trace is None:
            raise CourseError("--arrivals trace needs the times of a file: give --trace FILE")
        return workload if options.hardware else workload.in_steps(options.step_ms)
    if kind == "poisson":
        try:
            per_unit = float(rate)
        except ValueError:
            raise CourseError(
                f"cannot read arrivals {options.arrivals!r}: write poisson:RATE, e.g. poisson:0.1"
            ) from None
        arrivals = poisson_arrivals(len(workload), per_unit, options.seed)
        return workload.with_arrivals(arrivals, "seconds" if options.hardware else "steps")
    raise CourseError(f"unknown arrivals {options.arrivals!r}: use together, trace or poisson:RATE")


# ----- what is shown -----


def _plot(traces: list[Trace], rows: list[dict[str, Any]], path: str) -> None:
    from lessonlib.viz import memory, plots

    if len(traces) == 1:
        picture = plots.gantt(traces[0], str(traces[0]))
    else:
        best = min(rows, key=lambda row: row.get("seconds", row["steps"]))
        picture = memory.policies_chart(rows, f"{best['policy']} is home first")
    write_whole(path, picture.png())


def _explained(summary: dict[str, Any]) -> str:
    """One row a metric: its name, its value, what it means."""
    rows = [(name, _shown(name, value), _meaning(name)) for name, value in summary.items()]
    names, values = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"{name:<{names}}  {value:<{values}}  {meaning}" for name, value, meaning in rows]
    return "\n".join([*lines, "", PERCENTILES, *_reasons([summary])])


def _reasons(rows: list[dict[str, Any]]) -> list[str]:
    """What the reasons in `held_by` mean, a line each, after an empty line."""
    named = [name for name in REASONS if any(name in row["held_by"] for row in rows)]
    return ["", *(f"{name.replace('_', ' ')}: {REASONS[name]}" for name in named)] if named else []


def _shown(name: str, value: Any) -> str:
    if name == "held_by":
        return "  ".join(f"{reason.replace('_', ' ')} {share:.1%}" for reason, share in value.items()) or "-"
    if value is None or value == {}:
        return NOT_COUNTED
    if isinstance(value, dict):
        return "  ".join(f"{name} {number:,.1f}" for name, number in value.items())
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _meaning(name: str) -> str:
    for unit in ("steps", "seconds"):
        if (time := name.removesuffix(f"_{unit}")) != name:
            return f"{MEANINGS[time]}, in {unit}"
    return MEANINGS[name]


def _compared(rows: list[dict[str, Any]]) -> str:
    """One row a policy, and below them what each column means."""
    from lessonlib.simulation.compare import TABLE_COLUMNS, format_table

    titles = {title: key for key, title, _ in TABLE_COLUMNS if rows[0].get(key) is not None}
    meanings = {title: MEANINGS[key] for title, key in {**titles, "ttft": "ttft", "itl": "itl"}.items()}
    width = max(map(len, meanings))
    legend = "\n".join(f"{title:<{width}}  {meaning}" for title, meaning in meanings.items())
    return f"{format_table(rows)}\n\n{legend}\n\n{PERCENTILES}{_held(rows)}"


def _held(rows: list[dict[str, Any]]) -> str:
    """A table of the reasons, if any request waits."""
    from lessonlib.simulation.compare import reason_cells
    from lessonlib.tables import align

    if not any(row["held_by"] for row in rows):
        return ""
    title = "Why the first in the queue was not admitted, as shares of the steps with a queue:"
    return "\n".join(["\n", title, align(reason_cells(rows)), *_reasons(rows)])
