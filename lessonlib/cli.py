"""The `lesson` command. Exit status: 0 done, 1 a check failed, 2 the input could not be used."""

from __future__ import annotations

import argparse
import io
import json
import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lessonlib import __version__
from lessonlib.errors import CourseError
from lessonlib.files import check_place, write_whole
from lessonlib.trace import Trace
from lessonlib.workload import (
    DISTRIBUTION_SPECS,
    Workload,
    azure_prompts,
    draw_lengths,
    poisson_arrivals,
    read_trace,
)

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors of the user's input become one line and status 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal cannot show ends nothing
        sys.stdout.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        if getattr(options, "seed", None) is not None and options.seed < 0:
            raise CourseError(f"a seed of {options.seed}: give 0 or more")
        return options.run(options)
    except CourseError as error:
        print(f"lesson: error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("lesson: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lesson", description="The continuous-batching course.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_start(commands)
    _add_lab(commands)
    _add_doctor(commands)
    _add_model(commands)
    _add_simulate(commands)
    _add_generate(commands)
    _add_check(commands)
    _add_hint(commands)
    _add_grade(commands)
    _add_bench(commands)
    _add_compare(commands)
    return parser


# ----- start -----


def _add_start(commands: Any) -> None:
    start = commands.add_parser("start", help="lay the course into a folder, or bring it up to date there")
    start.add_argument(
        "folder",
        nargs="?",
        help="a new or an empty one, or one that was started before (default: the one that you are in, else "
        "./continuous-batching-course)",
    )
    start.add_argument(
        "--class",
        dest="for_class",
        action="store_true",
        help="a folder to hand out to a class: without the worked answers, and without a clone's history",
    )
    start.set_defaults(run=_start)


def _start(options: argparse.Namespace) -> int:
    from lessonlib.start import start

    print(*start(options.folder, with_solutions=not options.for_class), sep="\n")
    return DONE


# ----- lab -----


def _add_lab(commands: Any) -> None:
    lab = commands.add_parser("lab", help="JupyterLab on the course's folder, with notebook 01 open")
    lab.add_argument(
        "--port", type=int, help="the port, or nothing (default: 8888, else the next that is free)"
    )
    lab.add_argument("--ip", metavar="ADDRESS", help="where to listen (default: this machine alone)")
    lab.set_defaults(run=_lab)


def _lab(options: argparse.Namespace) -> int:
    from lessonlib.lab import open_lab

    open_lab(options.port, options.ip)
    return DONE


# ----- doctor -----


def _add_doctor(commands: Any) -> None:
    doctor = commands.add_parser("doctor", help="what this machine can run, and how to get the rest")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from lessonlib import doctor

    found = doctor.report()
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        doctor.text(found)
    return FAILED if found["tier"] == "none" else DONE


# ----- model -----


def _add_model(commands: Any) -> None:
    model = commands.add_parser("model", help="the course's model")
    actions = model.add_subparsers(required=True, metavar="ACTION")
    fetch = actions.add_parser(
        "fetch", help="bring SmolLM2-135M-Instruct into the cache; the last line is its folder"
    )
    fetch.set_defaults(run=_model_fetch)


def _model_fetch(options: argparse.Namespace) -> int:
    from lessonlib.fetch import fetch_model

    print(fetch_model())
    return DONE


# ----- simulate -----


def _add_simulate(commands: Any) -> None:
    simulate = commands.add_parser("simulate", help="ride a workload without a model")
    simulate.add_argument(
        "--policy", default="continuous", help="a name, several with commas, or all (continuous)"
    )
    simulate.add_argument("--slots", type=int, default=8, help="requests on board at once (default: 8)")
    source = simulate.add_mutually_exclusive_group(required=True)
    source.add_argument("--lengths", help="output lengths, e.g. 3,5,7")
    source.add_argument("--trace", help="a CSV with TIMESTAMP, ContextTokens, GeneratedTokens")
    source.add_argument("--dist", help=f"a distribution: {DISTRIBUTION_SPECS}")
    simulate.add_argument(
        "--requests", type=int, default=1000, help="how many to draw with --dist (default: 1000)"
    )
    simulate.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    simulate.add_argument(
        "--arrivals",
        default="together",
        help="together, trace, or poisson:RATE (a step; a second with --hardware)",
    )
    simulate.add_argument(
        "--step-ms", type=float, default=25.0, help="length of a step with --arrivals trace (25)"
    )
    simulate.add_argument("--fill", action="store_true", help="static: wait for a full car")
    simulate.add_argument(
        "--blocks", type=int, help="K/V blocks, the null block included (default: no limit)"
    )
    simulate.add_argument("--block-size", type=int, default=16, help="tokens a block (default: 16)")
    simulate.add_argument("--token-budget", type=int, help="tokens a step may compute (default: no limit)")
    simulate.add_argument("--hardware", metavar="GPU:MODEL", help="predict seconds, e.g. h100:llama-2-7b")
    simulate.add_argument("--save", metavar="FILE", help="write the Trace as JSON (.gz: compressed)")
    simulate.add_argument("--plot", metavar="FILE", help="draw it, or all policies side by side, as a PNG")
    simulate.add_argument("--json", action="store_true", help="print JSON")
    simulate.set_defaults(run=_simulate)


def _simulate(options: argparse.Namespace) -> int:
    from lessonlib.metrics import metrics
    from lessonlib.simulation.compare import format_table

    traces = _rides(options)
    rows = [metrics(trace) for trace in traces]
    if options.save:
        _only(traces, "--save").save(options.save)
    if options.plot:
        _plot(traces, rows, options.plot)
    if options.json:
        print(json.dumps(rows[0] if len(rows) == 1 else rows, indent=1))
    else:
        print(_table(rows[0]) if len(rows) == 1 else format_table(rows))
    return DONE


def _rides(options: argparse.Namespace) -> list[Trace]:
    """One Trace a policy: by the slot scheduler where memory and prompts are no question, else by the Scheduler."""
    from lessonlib.scheduling.policies import POLICIES
    from lessonlib.simulation import slots
    from lessonlib.simulation.compare import simulate_on

    names = list(POLICIES) if options.policy == "all" else options.policy.split(",")
    workload = _workload(options)
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
    )


def _only(traces: list[Trace], option: str) -> Trace:
    if len(traces) > 1:
        raise CourseError(f"{option} takes one ride, here are {len(traces)}: name one policy")
    return traces[0]


def _workload(options: argparse.Namespace) -> Workload:
    return _arriving(_requests(options), options)


def _requests(options: argparse.Namespace) -> Workload:
    if options.trace:
        return read_trace(options.trace)
    if options.dist:
        lengths = draw_lengths(options.dist, options.requests, options.seed)
        return Workload.from_lengths(lengths, azure_prompts(options.requests, options.seed))
    return Workload.from_lengths(_whole_numbers(options.lengths))


def _whole_numbers(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    try:
        return [int(word) for word in words]
    except ValueError:
        raise CourseError(f"cannot read lengths {text!r}: give whole numbers, e.g. 3,5,7") from None


def _arriving(workload: Workload, options: argparse.Namespace) -> Workload:
    kind, _, rate = options.arrivals.partition(":")
    if kind == "together" and not rate:
        return Workload.from_lengths(workload.output_tokens, workload.prompt_tokens)
    if kind == "trace" and not rate:
        if not options.trace:
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


def _plot(traces: list[Trace], rows: list[dict[str, Any]], path: str) -> None:
    from lessonlib.viz import memory, plots

    if len(traces) == 1:
        picture = plots.gantt(traces[0], str(traces[0]))
    else:
        best = min(rows, key=lambda row: row.get("seconds", row["steps"]))
        picture = memory.policies_chart(rows, f"{best['policy']} is home first")
    write_whole(path, picture.png())


def _table(summary: dict[str, Any]) -> str:
    def shown(value: Any) -> str:
        if isinstance(value, dict):
            return "  ".join(f"{name} {number:,.1f}" for name, number in value.items())
        if isinstance(value, float):
            return f"{value:,.4g}"
        return f"{value:,}" if isinstance(value, int) else str(value)

    return "\n".join(f"{name:<15} {shown(value)}" for name, value in summary.items())


# ----- generate -----


def _add_generate(commands: Any) -> None:
    generate = commands.add_parser("generate", help="answer prompts with a real model")
    generate.add_argument("--prompts", required=True, help="a text file, one prompt a line")
    generate.add_argument("--model", default="smollm2", help="a folder, a hub name, or smollm2 (default)")
    generate.add_argument("--policy", default="continuous", help="continuous (default), static, vllm, …")
    generate.add_argument("--device", default="auto", help="cpu, cuda or auto (default)")
    generate.add_argument("--dtype", default="auto", help="float32, bfloat16, float16 or auto (default)")
    generate.add_argument(
        "--attention", default="auto", help="triton, native, reference or auto: triton on a GPU (default)"
    )
    generate.add_argument(
        "--slots",
        "--max-num-seqs",
        dest="max_num_seqs",
        type=int,
        default=8,
        help="requests on board at once (8)",
    )
    generate.add_argument("--max-num-batched-tokens", type=int, help="tokens a step computes at most")
    generate.add_argument("--num-blocks", type=int, help="K/V blocks (default: as memory holds)")
    generate.add_argument("--max-tokens", type=int, default=128, help="longest answer (default: 128)")
    generate.add_argument("--temperature", type=float, default=0.0, help="0 (default): the likeliest token")
    generate.add_argument("--top-p", type=float, default=1.0, help="share of probability to draw from (1)")
    generate.add_argument("--seed", type=int, help="of the draws, where the temperature is above 0")
    generate.add_argument("--save", metavar="FILE", help="write the Trace as JSON (.gz: compressed)")
    generate.add_argument("--json", action="store_true", help="print JSON")
    generate.set_defaults(run=_generate)


def _generate(options: argparse.Namespace) -> int:
    prompts = _read_prompts(options.prompts)
    if options.save:
        check_place(options.save)  # better known before than after
    print(f"loading {options.model}", file=sys.stderr, flush=True)
    from lessonlib.engine import LLM, SamplingParams

    params = SamplingParams(
        max_tokens=options.max_tokens, temperature=options.temperature, top_p=options.top_p, seed=options.seed
    )
    names = ("policy", "device", "dtype", "attention", "max_num_seqs", "max_num_batched_tokens", "num_blocks")
    llm = LLM(options.model, **{name: getattr(options, name) for name in names})
    chats = [llm.chat_prompt([{"role": "user", "content": prompt}]) for prompt in prompts]
    answers = llm.generate(chats, params) if options.json else _stream(llm, prompts, chats, params)
    if options.save:
        llm.trace.save(options.save)
    result = {**llm.trace.summary(), "seconds": llm.trace.span}
    outputs = [
        {"prompt": prompt, **{name: getattr(answer.outputs[0], name) for name in SHOWN}}
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    print(json.dumps({**result, "outputs": outputs}, indent=1) if options.json else _rates(result))
    return DONE


SHOWN = ("token_ids", "text", "finish_reason")


def _stream(llm: Any, prompts: list[str], chats: list[Any], params: Any) -> list[Any]:
    """Print the answers in order, each as its words come; those after it ride along unseen."""
    for place, chat in enumerate(chats):
        llm.add_request(str(place), chat, params)
    latest: dict[str, Any] = {}
    for place, prompt in enumerate(prompts):
        print(f"> {prompt}")
        shown = 0
        while True:
            answer = latest.get(str(place))
            if answer is not None:
                print(answer.outputs[0].text[shown:], end="", flush=True)
                shown = len(answer.outputs[0].text)
                if answer.finished:
                    break
            latest |= {output.request_id: output for output in llm.step()}
        print("\n")
    return [latest[str(place)] for place in range(len(prompts))]


def _read_prompts(path: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise CourseError(
            f"cannot read prompts from {path}: {reason}; give a text file, one prompt a line"
        ) from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise CourseError(f"{path} holds no prompts: write one a line")
    return prompts


def _rates(result: dict[str, Any]) -> str:
    rate = result["tokens"] / result["seconds"]
    return (
        f"{result['tokens']:,} tokens in {result['steps']:,} steps, {result['seconds']:.1f} s "
        f"({rate:.0f} tok/s), utilization {result['utilization']:.1%}"
    )


# ----- check -----


def _add_check(commands: Any) -> None:
    check = commands.add_parser("check", help="look at your answers")
    check.add_argument("exercises", nargs="*", help="ex01, ex02.1, … (default: all)")
    check.add_argument(
        "--from", dest="folder", default="exercises", help="folder of your files (default: exercises)"
    )
    check.add_argument("--seed", type=int, help="draw the same inputs again")
    check.add_argument(
        "--so-far", action="store_true", help="exit with 0 where all that is written passed, as in CI"
    )
    check.add_argument("--json", metavar="FILE", help="write JSON there (-: print it instead of the words)")
    check.add_argument("--junit", metavar="FILE", help="write JUnit XML there")
    check.add_argument(
        "--rides", metavar="FOLDER", help="write failing rides there, as Traces for the elevator"
    )
    check.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    from lessonlib.checks import check
    from lessonlib.checks.junit import to_junit

    for path in (options.json, options.junit):
        _check_out(path)
    report = check(*options.exercises, folder=options.folder, seed=options.seed)
    if options.json == "-":
        print(json.dumps(report.to_dict(), indent=1))
    else:
        print(report)
        _write_result(report.to_dict(), options.json)
    if options.junit:
        write_whole(options.junit, to_junit(report.results))
    if options.rides:
        _save_rides(report, options.rides)
    return report.exit_code_so_far if options.so_far else report.exit_code


def _save_rides(report: Any, folder: str) -> None:
    try:
        report.save_rides(folder)
    except OSError as error:
        raise CourseError(f"cannot write to {folder}: {error.strerror}; choose another place") from error


# ----- hint -----


def _add_hint(commands: Any) -> None:
    hint = commands.add_parser(
        "hint", help="a nudge for one task, then a clearer one, then nearly the answer"
    )
    hint.add_argument("task", metavar="TASK", help="such as ex01.1")
    hint.add_argument("number", nargs="?", type=int, default=1, help="1 (default), 2 or 3")
    hint.add_argument("--solution", action="store_true", help="the worked answer")
    hint.set_defaults(run=_hint)


def _hint(options: argparse.Namespace) -> int:
    from lessonlib.checks import hint, solution

    print(solution(options.task) if options.solution else hint(options.task, options.number))
    return DONE


# ----- grade -----


def _add_grade(commands: Any) -> None:
    grade = commands.add_parser("grade", help="check a class's submissions")
    grade.add_argument(
        "submissions", help="what was handed in: a folder, or the zip that a platform makes of it"
    )
    grade.add_argument("--out", required=True, help="folder for the results")
    where = grade.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, help="processes of this machine (default: one a core)")
    where.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask scheduler, e.g. tcp://10.0.0.5:8786")
    grade.add_argument("--resume", action="store_true", help="do only what is missing in --out")
    grade.add_argument(
        "--regrade", nargs="+", default=[], metavar="NAME", help="as --resume, and these students again"
    )
    grade.add_argument(
        "--from",
        dest="layout",
        metavar="LAYOUT",
        help="canvas, moodle, gradescope or folders (default: guessed where it is clear)",
    )
    grade.add_argument(
        "--exercises", nargs="+", default=[], metavar="ID", help="ex01, ex02.1, … (default: all)"
    )
    grade.add_argument(
        "--weights", metavar="FILE", help='points of tasks, TOML: "ex03.1" = 2 (default: 1 each)'
    )
    grade.add_argument(
        "--roster", metavar="FILE", help="a gradebook exported from Canvas, or Moodle's grading worksheet"
    )
    grade.add_argument(
        "--overrides", metavar="FILE", help="points given by hand, TOML; kept in --out until another is given"
    )
    grade.add_argument("--assignment", default="continuous-batching", help="its name in the tables")
    grade.add_argument(
        "--seed", type=int, help="draws everyone's inputs, with their names (default: a fresh one)"
    )
    grade.set_defaults(run=_grade)


def _grade(options: argparse.Namespace) -> int:
    from lessonlib.grading.run import Settings, grade

    settings = Settings(
        tuple(options.exercises),
        options.seed,
        Path(options.weights) if options.weights else None,
        options.assignment,
    )
    grades = grade(
        options.submissions,
        options.out,
        settings,
        layout=options.layout,
        workers=options.workers,
        scheduler=options.scheduler,
        resume=options.resume,
        regrade=options.regrade,
        roster=options.roster,
        overrides=options.overrides,
    )
    print(grades.summary)
    return DONE if grades.complete else FAILED


# ----- bench -----


def _add_bench(commands: Any) -> None:
    bench = commands.add_parser("bench", help="measure on this machine")
    what = bench.add_subparsers(required=True, metavar="WHAT")
    attention = what.add_parser("attention", help="the attention kernels, beside their peers where they are")
    attention.set_defaults(run=_bench_attention)
    engine = what.add_parser("engine", help="from a static batch to the whole engine, one change a rung")
    engine.add_argument(
        "--model",
        help="a folder, a hub name, smollm2, or a shape such as llama-2-7b, which gets random weights "
        "(default: smollm2 on a CPU, the largest shape that a GPU holds)",
    )
    engine.add_argument("--device", default="auto", help="cpu, cuda or auto (default: auto)")
    engine.set_defaults(run=_bench_engine)
    for each in (attention, engine):
        each.add_argument("--json", action="store_true", help="print JSON")
        each.add_argument("--out", metavar="FILE", help="write the result as JSON")


def _bench_attention(options: argparse.Namespace) -> int:
    """Times that mean something need a GPU; without one the result says so and shows that the code runs."""
    _check_out(options.out)
    from kernels.tier import has_triton, triton_remedy

    if not has_triton():
        raise CourseError(f"the attention benchmark needs Triton, which is not installed: {triton_remedy()}")
    from kernels import bench

    result = bench.bench_attention()
    _write_result(result, options.out)
    print(json.dumps(result, indent=1) if options.json else bench.report(result))
    return DONE


def _bench_engine(options: argparse.Namespace) -> int:
    _check_out(options.out)
    from lessonlib import ladder

    result = ladder.bench_engine(options.model, options.device)
    _write_result(result, options.out)
    print(json.dumps(result, indent=1) if options.json else ladder.report(result))
    return DONE


def _check_out(path: str | None) -> None:
    """Raises `CourseError` before anything is measured that could not be written down."""
    if path and not Path(path).absolute().parent.is_dir():
        raise CourseError(f"cannot write {path}: there is no such folder; choose another place")


def _write_result(result: dict[str, Any], path: str | None) -> None:
    if path:
        write_whole(path, json.dumps(result, indent=1) + "\n")


# ----- compare -----


def _add_compare(commands: Any) -> None:
    compare = commands.add_parser("compare", help="engines side by side on the same work")
    compare.add_argument(
        "--preset", default="cpu", help="cpu (SmolLM2) or gpu (Llama-2-7B shapes) (default: cpu)"
    )
    compare.add_argument(
        "--contenders",
        help="of hf, hf-dynamic, hf-cb, course, its earlier forms course-static, course-continuous, course-paged, "
        "course-mixed and course-graphs, mine (your own parts in it), vllm (hf,course,vllm; for a split alone, its own "
        "chain)",
    )
    compare.add_argument(
        "--workload",
        default="mixed",
        help="of mixed, fixed, sweep, split, sampled, online, trace:FILE, with commas (mixed)",
    )
    compare.add_argument("--rows", help="only these rows of the workloads, e.g. '64 mixed,64 x 256'")
    compare.add_argument("--repeat", type=int, help="rounds; the order is rotated by one each (2; gpu: 1)")
    compare.add_argument("--runs", type=int, help="timed runs of a row in each turn (1; gpu: 2)")
    compare.add_argument(
        "--rates", help="arrivals a second of the online rows, or shares of vLLM's peak, e.g. '4,8,70%%'"
    )
    compare.add_argument("--requests", type=int, help="of an online row (48; gpu: 256)")
    compare.add_argument(
        "--peak",
        metavar="RATE|FILE",
        help="requests a second that vLLM finishes, all there at the start, or a result that says so (measured first)",
    )
    compare.add_argument(
        "--no-trace", action="store_true", help="do not start vLLM once more to record its scheduler"
    )
    compare.add_argument("--slots", type=int, help="requests on board at once (16; gpu: 256)")
    compare.add_argument("--threads", type=int, help="of the CPU's computation (default: every core)")
    compare.add_argument("--model", help="a folder, a hub name, or smollm2 (default: the preset's)")
    compare.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    compare.add_argument(
        "--from", dest="folder", default="exercises", help="folder of your files, for mine (exercises)"
    )
    compare.add_argument("--timeout", type=float, default=600, help="seconds a load or a run may take (600)")
    compare.add_argument("--json", metavar="FILE", help="write the result, after every run")
    compare.add_argument("--plot", metavar="FILE", help="draw it as a PNG")
    compare.add_argument("--against", metavar="FILE", help="print what changed since this result")
    compare.add_argument(
        "--merge",
        metavar="FILE,FILE",
        help="measure nothing: make one result of several, whose contenders or rows were measured on one machine",
    )
    compare.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    from lessonlib.contenders import report
    from lessonlib.contenders.merge import merge
    from lessonlib.result import Comparison

    before = Comparison.load(options.against) if options.against else None
    if options.merge:
        found = merge(options.merge.split(","))
        if options.json:
            found.save(options.json)
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


def _measured(options: argparse.Namespace) -> Any:
    """The `Comparison` that was asked for."""
    from kernels.machine import command
    from lessonlib.contenders import compare, presets

    if options.preset not in presets.PRESETS:
        raise CourseError(f"unknown preset {options.preset!r}: use one of {', '.join(presets.PRESETS)}")
    preset, workloads = presets.PRESETS[options.preset], options.workload.split(",")
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
        traces_vllm=not options.no_trace,
        model=options.model,
        slots=options.slots,
        threads=options.threads,
        timeout=options.timeout,
        out=Path(options.json) if options.json else None,
        command=command(sys.argv),
        seed=options.seed,
        own=options.folder,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: processes are ended, results kept
    return compare.compare(chosen, lambda line: print(line, file=sys.stderr, flush=True))


def _peak(word: str) -> Any:
    """A `Peak` from a number of requests a second, or from a result file. Raises `CourseError` for others."""
    from lessonlib.contenders.setup import PEAKS_OF
    from lessonlib.result import Comparison, Peak

    try:
        rate = float(word)
    except ValueError:
        return Comparison.load(word).peak(PEAKS_OF)
    if not 0 < rate < math.inf:
        raise CourseError(f"peak {word}: give requests a second, above 0, or a result file")
    return Peak(rate, "given")


def _plot_comparison(found: Any, path: str) -> None:
    from lessonlib.viz.contenders import comparison_chart

    write_whole(path, comparison_chart(found).png())


if __name__ == "__main__":
    sys.exit(main())
