"""Each change of the ladder switched off alone, from the whole engine.

A ladder's factors depend on its order: a change that comes late meets an engine that earlier ones have made quick, and
one that comes early may be worth more or less than later. Here every change is measured at the same place: against
the whole engine, by what it costs to do without it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from statistics import median
from typing import Any

from tqdm import tqdm

from kernels.machine import machine
from lessonlib.engine.frontend.options import choose_device
from lessonlib.engine.llm import LLM
from lessonlib.engine.memory import release_memory
from lessonlib.engine.model import Llama
from lessonlib.ladder import Requests, in_json, run_once, rungs_with_settings
from lessonlib.ladder_load import Load, load_for, load_model
from lessonlib.scheduling.policies import PrefillFirst, SarathiReserved, StaticBatching
from lessonlib.tables import align
from lessonlib.trace import Trace

WHOLE = "the whole engine"
ROUNDS = 3  # the first warms up
NEEDS_GPU = ("graphs", "overlapped host")


def variants(load: Load) -> list[tuple[str, dict[str, Any]]]:
    """The whole engine, then without each change alone: a name, and all settings of its `LLM`."""
    whole = rungs_with_settings(load)[-1][1]
    without: dict[str, dict[str, Any]] = {
        "refilled slots": {"policy": StaticBatching()},
        "paged memory": {"policy": SarathiReserved(load.chunk_tokens), "max_num_seqs": load.slots},
        "chunked, mixed prefill": {"policy": PrefillFirst()},
        "prefix cache": {"enable_prefix_caching": False},
        "graphs": {"enforce_eager": True},
        "overlapped host": {"async_scheduling": False},
    }
    return [(WHOLE, whole), *((name, {**whole, **changes}) for name, changes in without.items())]


def bench_without(model: str | None = None, device: str = "auto", load: Load | None = None) -> dict[str, Any]:
    """Measure the whole engine and each variant, in rounds whose order is rotated by one.

    Args:
        model, device, load: as of `ladder.bench_engine`.

    Returns:
        The facts about the machine; model, dtype and workload; and rows, each with its changed settings, the seconds
        of each timed run, their median, the steps, and `times_the_whole`: median, least and most of the ratios to the
        whole engine's run in the same round.

    Raises:
        CourseError: for an unknown model or device, or too little memory.
    """
    torch_device = choose_device(device)
    release_memory()
    llama, name = load_model(model, torch_device)
    load = load or load_for(llama)
    began = time.perf_counter()
    here = [each for each in variants(load) if torch_device.type == "cuda" or each[0] not in NEEDS_GPU]
    traces = _measure(llama, load, here)
    return {
        **machine("transformers", device=torch_device.type),
        "model": name,
        "dtype": str(llama.dtype).removeprefix("torch."),
        "workload": {**asdict(load), "num_blocks": load.num_blocks, "longest": load.longest},
        "rows": [_row(name, settings, here[0][1], traces) for name, settings in here],
        "seconds": time.perf_counter() - began,
    }


def _measure(llama: Llama, load: Load, here: list[tuple[str, dict[str, Any]]]) -> Mapping[str, list[Trace]]:
    requests = Requests.draw(load, llama.config.vocab_size, 0)
    traces: dict[str, list[Trace]] = defaultdict(list)
    with tqdm(total=ROUNDS * len(here), desc="without", unit="run") as bar:
        for turn in range(ROUNDS):
            for name, settings in here[turn:] + here[:turn]:
                bar.set_description(name)
                llm = LLM(llama, **settings)
                trace = run_once(llm, requests, bar)
                llm.close()
                if turn:
                    traces[name].append(trace)
    return traces


def _row(
    name: str, settings: Mapping[str, Any], whole: Mapping[str, Any], traces: Mapping[str, list[Trace]]
) -> dict[str, Any]:
    spans = [trace.span for trace in traces[name]]
    times = [span / other.span for span, other in zip(spans, traces[WHOLE], strict=True)]
    return {
        "without": name,
        "changes": in_json({key: value for key, value in settings.items() if value is not whole[key]}),
        "runs_seconds": spans,
        "seconds": median(spans),
        "steps": traces[name][0].num_steps,
        "seconds_per_step": median(spans) / traces[name][0].num_steps,
        "times_the_whole": {"median": median(times), "least": min(times), "most": max(times)},
    }


def report(result: Mapping[str, Any]) -> str:
    """The result as text for a terminal."""
    lines = [["without", "seconds", "steps", "ms/step", "times the whole", "from", "to"]]
    for row in result["rows"]:
        times = row["times_the_whole"]
        lines.append(
            [
                row["without"],
                f"{row['seconds']:.2f}",
                f"{row['steps']:,}",
                f"{1e3 * row['seconds_per_step']:.2f}",
                *(f"{times[key]:.2f}" for key in ("median", "least", "most")),
            ]
        )
    return f"{result['machine']}, {result['versions']}, {result['date']}\n{result['model']}\n\n{align(lines)}"
