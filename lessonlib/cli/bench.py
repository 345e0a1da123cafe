"""`lesson bench`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from lessonlib.cli.command import DONE, Command, Group, check_out, write_result
from lessonlib.errors import CourseError


@click.group(cls=Group, short_help="measure kernels or the engine on this machine")
def bench() -> None:
    """Measure on this machine."""


def _writes_result(command: Callable[..., int]) -> Callable[..., int]:
    """The options that both benchmarks have."""
    command = click.option("--out", metavar="FILE", help="Write the result as JSON.")(command)
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


@bench.command(cls=Command, short_help="the attention kernels, beside their peers where they are")
@_writes_result
def attention(as_json: bool, out: str | None) -> int:
    """Time the attention kernels, beside their peers where they are installed.

    Times that mean something need a GPU; without one the result says so and shows that the code runs.
    """
    check_out(out)
    from kernels.tier import has_triton, triton_remedy

    if not has_triton():
        raise CourseError(f"the attention benchmark needs Triton, which is not installed: {triton_remedy()}")
    from kernels import bench as kernel_bench

    return _finish(kernel_bench.bench_attention(), kernel_bench.report, as_json, out)


@bench.command(cls=Command, short_help="from a static batch to the whole engine, one change a rung")
@click.option(
    "--model",
    help="A folder, a hub name, smollm2, or a shape such as llama-2-7b, which gets random weights.",
    show_default="smollm2 on a CPU, the largest shape that a GPU holds",
)
@click.option("--device", default="auto", help="cpu, cuda or auto.")
@click.option("--without", is_flag=True, help="The whole engine, and without each change alone.")
@_writes_result
def engine(model: str | None, device: str, without: bool, as_json: bool, out: str | None) -> int:
    """Measure the engine's forms, from a static batch to the whole engine, one change at a time."""
    check_out(out)
    from lessonlib import ladder, ladder_without

    if without:
        return _finish(ladder_without.bench_without(model, device), ladder_without.report, as_json, out)
    return _finish(ladder.bench_engine(model, device), ladder.report, as_json, out)


@bench.command(cls=Command, short_help="every policy on the engine where memory is short, and its prediction")
@click.option("--policies", default="all", help="Names with commas, or all.")
@click.option(
    "--model",
    help="A folder, a hub name, smollm2, or a shape such as llama-3.1-8b, which gets random weights.",
    show_default="smollm2 on a CPU, the largest shape that a GPU holds",
)
@click.option("--device", default="auto", help="cpu, cuda or auto.")
@_writes_result
def policies(policies: str, model: str | None, device: str, as_json: bool, out: str | None) -> int:
    """Run every policy on the real engine at a size where memory is short, the simulator's prediction beside it."""
    check_out(out)
    from lessonlib import policy_bench

    names = () if policies == "all" else policies.split(",")
    return _finish(policy_bench.bench_policies(names, model, device), policy_bench.report, as_json, out)


def _finish(
    result: dict[str, Any], report: Callable[[dict[str, Any]], str], as_json: bool, out: str | None
) -> int:
    write_result(result, out)
    print(json.dumps(result, indent=1) if as_json else report(result))
    return DONE
