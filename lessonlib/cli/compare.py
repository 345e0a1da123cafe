"""`lesson compare`."""

from __future__ import annotations

import math
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from lessonlib.cli.command import BAD_INPUT, DONE, FAILED, INTERRUPTED, Command, seed_from_zero
from lessonlib.contenders.registry import CONTENDERS
from lessonlib.errors import CourseError
from lessonlib.files import write_whole


@click.command(
    cls=Command,
    short_help="engines side by side on the same work",
    example="lesson compare --json out.json --plot out.png",
)
@click.option("--preset", default="cpu", help="cpu (SmolLM2) or gpu (Llama-2-7B shapes).")
@click.option(
    "--contenders",
    help=f"Of {', '.join(CONTENDERS)}. In mine are your own parts.",
    show_default="hf,course,vllm; for a split alone, its own chain",
)
@click.option(
    "--workload",
    default="mixed",
    help="Of mixed, fixed, sweep, split, sampled, online, conversations, trace:FILE, with commas.",
)
@click.option("--rows", help="Only these rows of the workloads, e.g. '64 mixed,64 x 256'.")
@click.option(
    "--repeat", type=int, help="Rounds; the order is rotated by one each.", show_default="2; gpu: 1"
)
@click.option("--runs", type=int, help="Timed runs of a row in each turn.", show_default="1; gpu: 2")
@click.option(
    "--rates", help="Arrivals a second of the online rows, or shares of vLLM's peak, e.g. '4,8,70%'."
)
@click.option("--requests", type=int, help="Of an online row.", show_default="48; gpu: 256")
@click.option(
    "--peak",
    metavar="RATE|FILE",
    help="Requests a second that vLLM finishes, all there at the start, or a result that says so.",
    show_default="measured first",
)
@click.option("--no-identity", is_flag=True, help="Do not first compare a few answers in float32.")
@click.option("--no-trace", is_flag=True, help="Do not start vLLM once more to record its scheduler.")
@click.option("--slots", type=int, help="Requests on board at once.", show_default="16; gpu: 256")
@click.option("--threads", type=int, help="Of the CPU's computation.", show_default="every core")
@click.option(
    "--shapes",
    help="Of random weights on a card: llama-2-7b, llama-3-8b or llama-1b.",
    show_default="what fits",
)
@click.option("--model", help="A folder, a hub name, or smollm2.", show_default="the preset's")
@click.option("--seed", type=int, default=0, callback=seed_from_zero, help="Of the draws.")
@click.option("--from", "folder", default="exercises", help="Folder of your files, for mine.")
@click.option("--timeout", type=float, default=600, help="Seconds a load or a run may take.")
@click.option("--json", "json_file", metavar="FILE", help="Write the result, after every run.")
@click.option("--plot", metavar="FILE", help="Draw it as a PNG.")
@click.option("--against", metavar="FILE", help="Print what changed since this result.")
@click.option(
    "--merge",
    metavar="FILE,FILE",
    help="Measure nothing: make one result of several, whose contenders or rows were measured on one machine.",
)
def compare(**given: Any) -> int:
    """Measure engines side by side on the same work, each in a process of its own."""
    from lessonlib.contenders import report
    from lessonlib.contenders.merge import merge
    from lessonlib.result import Comparison

    options = SimpleNamespace(**given)
    before = Comparison.load(options.against) if options.against else None
    if options.merge:
        found = merge(options.merge.split(","))
        if options.json_file:
            found.save(options.json_file)
    else:
        found = _measured(options)
    print(report.text(found))
    if before:
        print("\n" + report.against(found, before))
    if options.plot:
        _plot_comparison(found, options.plot)
    if not found.is_whole:
        return INTERRUPTED
    return BAD_INPUT if found.is_refused else FAILED if found.has_failures else DONE


def _measured(options: SimpleNamespace) -> Any:
    """The `Comparison` that was asked for."""
    from kernels.machine import command
    from lessonlib.contenders import compare, presets

    if options.preset not in presets.PRESETS:
        raise CourseError(f"unknown preset {options.preset!r}: use one of {', '.join(presets.PRESETS)}")
    preset, workloads = presets.PRESETS[options.preset], options.workload.split(",")
    if options.shapes:
        preset = presets.with_shapes(preset, options.shapes)
    chosen = compare.Options(
        preset=preset,
        contenders=options.contenders.split(",")
        if options.contenders is not None
        else compare.contenders_for(preset, workloads),
        workloads=workloads,
        only=options.rows.split(",") if options.rows else (),
        repeat=options.repeat,
        runs=options.runs,
        rates=options.rates.split(",") if options.rates else (),
        online_requests=options.requests,
        peak=_peak(options.peak) if options.peak else None,
        checks_identity=not options.no_identity,
        traces_vllm=not options.no_trace,
        model=options.model,
        slots=options.slots,
        threads=options.threads,
        timeout=options.timeout,
        out=Path(options.json_file) if options.json_file else None,
        command=command(sys.argv),
        seed=options.seed,
        own=options.folder,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: processes are ended, results kept
    return compare.compare(chosen, lambda line: print(line, file=sys.stderr, flush=True))


def _peak(text: str) -> Any:
    """A `Peak` from a number of requests a second, or from a result file. Raises `CourseError` for others."""
    from lessonlib.contenders.setup import PEAKS_OF
    from lessonlib.result import Comparison, Peak

    try:
        rate = float(text)
    except ValueError:
        return Comparison.load(text).peak(PEAKS_OF)
    if not 0 < rate < math.inf:
        raise CourseError(f"peak {text}: give requests a second, above 0, or a result file")
    return Peak(rate, "given")


def _plot_comparison(found: Any, path: str) -> None:
    from lessonlib.viz.contenders import comparison_chart

    write_whole(path, comparison_chart(found).png())
