"""From a static batch to the whole engine in single changes, and what each change was worth on one workload.

Every rung is the same `LLM` around the same weights, with one thing changed from the rung before, and answers
the same requests greedily to the same lengths. There are more requests than slots, since only then does it count
whether a freed slot is refilled. Tokens are equal on all rungs, so a rung's speed-up is a product:

    speed-up = (steps before / steps) × (seconds a step before / seconds a step)

All rungs are run in turn, as many rounds as time allows, and the fastest run of each counts: the first round warms up
the shapes that are timed, and other work of the machine does not fall on one rung alone. Beside the measurement
stand two predictions: notebook 01's utilization, and the simulator with a step cost fitted to other runs, made just
before, of two thirds as many and other requests (`fit_costs`).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from kernels.machine import copy_bandwidth, machine
from lessonlib.engine.frontend.options import choose_device
from lessonlib.engine.frontend.params import SamplingParams
from lessonlib.engine.llm import LLM
from lessonlib.engine.memory import kv_bytes_per_block, release_memory
from lessonlib.engine.model import Llama
from lessonlib.ladder_load import Load, Requests, load_for, load_model
from lessonlib.metrics import decode_rows, kv_tokens, metrics, prefill_tokens
from lessonlib.scheduling.policies import PrefillFirst, PrefillFirstReserved, SarathiServe, StaticBatching
from lessonlib.scheduling.policy import Policy
from lessonlib.simulation.costs import CostModel
from lessonlib.simulation.simulator import simulate
from lessonlib.tables import align
from lessonlib.trace import Trace
from lessonlib.utilization import continuous_utilization, static_utilization
from lessonlib.workload import Workload

TARGET_ERROR = 0.15  # of a predicted wall-clock time
TIMED_SEED, FITTED_SEED = 0, 1
FEWEST_STEPS = 5  # that a median is taken of
# Settings that change how a step is launched.
LAUNCH_SETTINGS = ("enforce_eager", "async_scheduling", "max_num_seqs")
NEEDS_GPU = "not measured here: needs a GPU"


@dataclass(frozen=True)
class Rung:
    """One change to the engine.

    Attributes:
        name: of what is added.
        changes: settings of `LLM` that differ from the rung before.
        shows: the number that the change is meant to improve, a key of `SHOWN`.
        needs_gpu: whether the change has no effect on a CPU.
    """

    name: str
    changes: Mapping[str, Any]
    shows: str
    needs_gpu: bool = False


def base_settings(load: Load) -> dict[str, Any]:
    """Settings of `LLM` before any change, with memory for the longest sequence in each slot and no more."""
    return {
        "max_num_seqs": load.slots,
        "max_num_batched_tokens": load.step_tokens,
        "max_model_len": load.longest,
        "num_blocks": load.num_blocks,
        "block_size": load.block_size,
        "enable_prefix_caching": False,
        "enforce_eager": True,
        "async_scheduling": False,
        "skip_tokenizer_init": True,
    }


def rungs(load: Load) -> list[Rung]:
    """The rungs in order, each one change to the one before."""
    return [
        Rung("static", {"policy": StaticBatching()}, "utilization"),
        Rung("continuous", {"policy": PrefillFirstReserved()}, "utilization"),
        Rung("+ paged", {"policy": PrefillFirst(), "max_num_seqs": load.paged_slots}, "mean_running"),
        Rung("+ chunked, mixed prefill", {"policy": SarathiServe(load.chunk_tokens)}, "itl_p99"),
        Rung("+ prefix cache", {"enable_prefix_caching": True}, "prefill_tokens"),
        Rung("+ graphs", {"enforce_eager": False}, "seconds_per_step", needs_gpu=True),
        Rung("+ overlapped host", {"async_scheduling": True}, "seconds_per_step", needs_gpu=True),
    ]


def rungs_with_settings(load: Load) -> list[tuple[Rung, dict[str, Any]]]:
    """Each rung with all settings of its `LLM`: those of the rung before, and its own changes."""
    settings, found = base_settings(load), []
    for rung in rungs(load):
        settings = {**settings, **rung.changes}
        found.append((rung, settings))
    return found


# The number that a rung is meant to improve: its label, and its text from the rung's row.
SHOWN = {
    "utilization": ("utilization", lambda row: f"{row['utilization']:.1%}"),
    "mean_running": ("requests running, mean", lambda row: f"{row['mean_running']:.1f}"),
    "itl_p99": ("between tokens, p99", lambda row: f"{1e3 * row['itl_seconds']['p99']:,.0f} ms"),
    "prefill_tokens": ("prompt tokens computed", lambda row: f"{row['prefill_tokens']:,}"),
    "seconds_per_step": ("a step", lambda row: f"{1e3 * row['seconds_per_step']:.2f} ms"),
}


# ----- measuring -----


def bench_engine(model: str | None = None, device: str = "auto", load: Load | None = None) -> dict[str, Any]:
    """Measure every rung, and predict it.

    Args:
        model: a folder, a hub name, "smollm2", or one of `simulation.costs.MODELS`, whose shape gets random
            weights. By default SmolLM2 on a CPU, and on a GPU the largest shape that it holds.
        device: "cpu", "cuda" or "auto".
        load: the requests and sizes; by default made for the device and the model.

    Returns:
        The facts about the machine; model, dtype and workload; copy_gb_s; cost_models by rung; and rungs, each with
        its numbers (`metrics.metrics` and more), its predictions, and its ratios to the rung before. A rung that
        cannot be measured here has the reason.

    Raises:
        CourseError: for an unknown model or device, or too little memory.
    """
    began = time.perf_counter()
    torch_device = choose_device(device)
    bandwidth = copy_bandwidth(torch_device)
    release_memory()
    llama, name = load_model(model, torch_device)
    load = load or load_for(llama)
    ladder = Ladder(llama, load, bandwidth * 1e9)
    rows = ladder.measure()
    return {
        **machine("transformers", device=torch_device.type),
        "tier": "gpu" if torch_device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "model": name,
        "dtype": str(llama.dtype).removeprefix("torch."),
        "weight_bytes": llama.weight_bytes,
        "kv_bytes_per_token": kv_bytes_per_block(llama, 1),
        "copy_gb_s": bandwidth,
        "workload": {**asdict(load), "num_blocks": load.num_blocks, "longest": load.longest},
        "cost_models": {fitted: vars(cost) for fitted, cost in ladder.costs.items()},
        "target_error": TARGET_ERROR,
        "rungs": rows,
        "seconds": time.perf_counter() - began,
    }


class Ladder:
    """Measures the rungs on one model, then predicts them.

    Args:
        llama: the model, whose weights all rungs share.
        load: the requests and sizes.
        bandwidth: of the device's memory, in bytes a second.

    Attributes:
        costs: rung -> its step costs, once it is measured.
    """

    def __init__(self, llama: Llama, load: Load, bandwidth: float) -> None:
        self.llama, self.load, self.bandwidth = llama, load, bandwidth
        vocabulary = llama.config.vocab_size
        self.timed = Requests.draw(load, vocabulary, TIMED_SEED)
        fewer = replace(load, requests=max(2, load.requests * 2 // 3))  # on a GPU enough to fill every slot
        self.fitted = Requests.draw(fewer, vocabulary, FITTED_SEED)
        self.costs: dict[str, CostModel] = {}
        self._rungs = rungs_with_settings(load)
        self._timed_traces: dict[str, list[Trace]] = defaultdict(list)
        self._fitted_traces: dict[str, list[Trace]] = defaultdict(list)  # of the run before each timed one

    def measure(self) -> list[dict[str, Any]]:
        """Run all rungs. Returns a row for each."""
        self._run_all()
        self.costs = fit_costs(self._fitted_traces, self._rungs)
        rows: list[dict[str, Any]] = []
        before: dict[str, Any] | None = None
        for rung, settings in self._rungs:
            row: dict[str, Any] = {"rung": rung.name, "changes": in_json(rung.changes), "shows": rung.shows}
            if self._can_run(rung):
                row |= {"measured": True, **self._numbers(self._timed_traces[rung.name])}
                row["decode_seconds"] = decode_seconds(
                    [*self._fitted_traces[rung.name], *self._timed_traces[rung.name]]
                )
                row["against_before"] = ratios(before, row) if before else None
                row["predicted"] = self._predict(rung, settings, row)
                before = row
            else:
                row |= {"measured": False, "why": NEEDS_GPU}
            rows.append(row)
        return rows

    def _can_run(self, rung: Rung) -> bool:
        return not rung.needs_gpu or self.llama.device.type == "cuda"

    def _run_all(self) -> None:
        """Rounds over all rungs, until `load.repeats` are done or the next one would take too long."""
        runnable = [(rung, settings) for rung, settings in self._rungs if self._can_run(rung)]
        began = time.perf_counter()
        with tqdm(total=2 * self.load.repeats * len(runnable), desc="ladder", unit="run") as bar:
            for done in range(self.load.repeats):
                if done and (time.perf_counter() - began) * (done + 1) / done > self.load.time_limit:
                    return
                for rung, settings in runnable:
                    self._run_rung(rung, settings, bar)

    def _run_rung(self, rung: Rung, settings: Mapping[str, Any], bar: tqdm) -> None:
        bar.set_description(rung.name)
        llm = LLM(self.llama, **settings)
        self._fitted_traces[rung.name].append(run_once(llm, self.fitted, bar))
        self._timed_traces[rung.name].append(run_once(llm, self.timed, bar))
        llm.close()

    def _numbers(self, traces: Sequence[Trace]) -> dict[str, Any]:
        """The metrics of the fastest run, the mean time of a step, and the share of the memory roofline."""
        trace = min(traces, key=lambda trace: trace.span)
        moved = trace.num_steps * self.llama.weight_bytes
        moved += int(kv_tokens(trace).sum()) * kv_bytes_per_block(self.llama, 1)
        return {
            "runs_seconds": [each.span for each in traces],
            **metrics(trace),
            "seconds_per_step": trace.span / trace.num_steps,
            "mean_running": float(np.average(trace.steps["running"])),
            "bytes_moved": moved,
            "roofline_share": moved / self.bandwidth / trace.span,
        }

    def _predict(self, rung: Rung, settings: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
        """The predictions of notebook 01 and of the simulator, with their relative errors (0.1: 10% too much)."""
        trace = predict(self.timed, settings, self.costs[rung.name])
        lengths, slots = self.timed.output_tokens, settings["max_num_seqs"]
        formula = (
            static_utilization if settings["policy"].name == StaticBatching.name else continuous_utilization
        )
        utilization = formula(lengths, slots)
        return {
            "seconds": trace.span,
            "seconds_error": trace.span / row["seconds"] - 1,
            "steps": trace.num_steps,
            "steps_error": trace.num_steps / row["steps"] - 1,
            "utilization": trace.utilization,
            "utilization_notebook_01": utilization,
            "utilization_notebook_01_error": utilization / row["utilization"] - 1,
        }


def run_once(llm: LLM, requests: Requests, bar: tqdm) -> Trace:
    """One run of all requests, with an empty prefix cache."""
    llm.reset_prefix_cache()
    params = [
        SamplingParams(max_tokens=count, temperature=0, ignore_eos=True) for count in requests.output_tokens
    ]
    llm.generate([{"prompt_token_ids": ids} for ids in requests.prompts], params, use_tqdm=False)
    bar.update()
    return llm.trace


def fit_costs(
    traces: Mapping[str, Sequence[Trace]], rungs: Sequence[tuple[Rung, Mapping[str, Any]]]
) -> dict[str, CostModel]:
    """Rung -> its step costs, fitted to the Traces of its runs.

    A run in a slow minute of the machine would make the requests in it look expensive. So each step counts with the
    least time it took in any run, since all runs plan the same steps. And rungs that launch their steps in the same
    way are fitted together: which requests a policy admits does not change what a step costs. The number of slots
    does: for few rows a GPU's engine launches matrix products of its own, which take the host longer. A rung of few
    slots launches only those; the fit of one with more slots is a mean of both.

    Args:
        traces: of each rung that was run.
        rungs: all rungs with their settings.
    """
    alike: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for rung, settings in rungs:
        if rung.name in traces:
            alike[tuple(settings[name] for name in LAUNCH_SETTINGS)].append(rung.name)
    costs: dict[str, CostModel] = {}
    for names in alike.values():
        costs |= dict.fromkeys(names, CostModel.fit(*(_least(traces[name]) for name in names)))
    return costs


def _least(traces: Sequence[Trace]) -> Trace:
    """A Trace in which each step takes the least time that it took in any of these, which have the same steps."""
    durations = np.min([trace.steps["duration"] for trace in traces], axis=0)
    return replace(traces[0], steps={**traces[0].steps, "duration": durations})


def decode_seconds(traces: Sequence[Trace]) -> dict[str, float]:
    """The median time of a step that only decodes, in seconds, by the number of its requests (a text, for JSON).

    Numbers with fewer than five steps are left out.
    """
    rows = np.concatenate([decode_rows(trace) * (prefill_tokens(trace) == 0) for trace in traces])
    took = np.concatenate([trace.steps["duration"] for trace in traces])
    counts, times = np.unique(rows[rows > 0], return_counts=True)
    often = counts[times >= FEWEST_STEPS].tolist()
    return {str(count): float(np.median(took[rows == count])) for count in often}


def predict(requests: Requests, settings: Mapping[str, Any], cost: CostModel) -> Trace:
    """The simulator's Trace of the same requests under the same settings."""
    workload = Workload.from_lengths(requests.output_tokens, [len(ids) for ids in requests.prompts])
    policy: Policy = settings["policy"]
    return simulate(
        workload,
        policy,
        settings["max_num_seqs"],
        settings["num_blocks"],
        settings["block_size"],
        settings["max_num_batched_tokens"],
        cost,
        max_model_len=settings["max_model_len"],
        prefix_caching=settings["enable_prefix_caching"],
        prompts=requests.prompts,
    )


def ratios(before: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, float]:
    """How many times faster a rung is than the one before, and the two factors of that."""
    steps = before["steps"] / row["steps"]
    step = before["seconds_per_step"] / row["seconds_per_step"]
    return {"speed": before["seconds"] / row["seconds"], "fewer_steps": steps, "quicker_steps": step}


def in_json(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings ready for JSON: a policy as its name and its options."""
    return {
        key: {"name": value.name, **vars(value)} if isinstance(value, Policy) else value
        for key, value in changes.items()
    }


# ----- a report -----

COLUMNS = (
    ("slots", lambda row: f"{row['slots']:,}"),
    ("steps", lambda row: f"{row['steps']:,}"),
    ("ms/step", lambda row: f"{1e3 * row['seconds_per_step']:.2f}"),
    ("seconds", lambda row: f"{row['seconds']:.2f}"),
    ("tok/s", lambda row: f"{row['tokens_per_second']:,.0f}"),
    ("util", lambda row: f"{row['utilization']:.1%}"),
    ("ttft p50", lambda row: f"{row['ttft_seconds']['p50']:.2f} s"),
    ("p99", lambda row: f"{row['ttft_seconds']['p99']:.2f} s"),
    ("itl p50", lambda row: f"{1e3 * row['itl_seconds']['p50']:,.1f} ms"),
    ("p99", lambda row: f"{1e3 * row['itl_seconds']['p99']:,.1f} ms"),
    ("runs", lambda row: " ".join(f"{span:.2f}" for span in row["runs_seconds"])),
    ("roofline", lambda row: f"{row['roofline_share']:.0%}"),
)
PREDICTED = (
    ("seconds", lambda row: f"{row['predicted']['seconds']:.2f}"),
    ("error", lambda row: f"{row['predicted']['seconds_error']:+.1%}"),
    ("steps", lambda row: f"{row['predicted']['steps']:,}"),
    ("error", lambda row: f"{row['predicted']['steps_error']:+.1%}"),
    ("util, notebook 01", lambda row: f"{row['predicted']['utilization_notebook_01']:.1%}"),
    ("error", lambda row: f"{row['predicted']['utilization_notebook_01_error']:+.1%}"),
)


def report(result: Mapping[str, Any]) -> str:
    """The result as text for a terminal."""
    measured = [row for row in result["rungs"] if row["measured"]]
    missing = [f"{row['rung']}: {row['why']}" for row in result["rungs"] if not row["measured"]]
    parts = [
        _heading(result),
        "Measured\n" + _table(measured, COLUMNS),
        "What each change is for, and what its speed-up is made of\n" + _changes(measured),
        "Predicted, and how far off\n" + _table(measured, PREDICTED),
        *(["\n".join(missing)] if missing else []),
    ]
    return "\n\n".join(parts)


def _heading(result: Mapping[str, Any]) -> str:
    load = result["workload"]
    return (
        f"{result['machine']}, {result['versions']}, {result['date']}\n"
        f"{result['model']}, {result['dtype']}, copy {result['copy_gb_s']:,.1f} GB/s, "
        f"{load['requests']} requests, K/V memory for {load['slots']} of the longest, {result['seconds']:.0f} s in all"
    )


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, Any]]) -> str:
    head = ["", *(title for title, _ in columns)]
    return align([head, *([row["rung"], *(show(row) for _, show in columns)] for row in rows)])


def _changes(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [["", "", "before", "now", "speed", "=", "fewer steps", "x", "quicker steps"]]
    for before, row in zip([None, *rows], rows, strict=False):
        label, show = SHOWN[row["shows"]]
        ratios = row["against_before"]
        cells = [row["rung"], label, show(before) if before else "", show(row)]
        if ratios:
            speed, fewer, quicker = (
                f"{ratios[name]:.2f}" for name in ("speed", "fewer_steps", "quicker_steps")
            )
            cells += [speed, "=", fewer, "x", quicker]
        lines.append(cells + [""] * (9 - len(cells)))
    return align(lines)
