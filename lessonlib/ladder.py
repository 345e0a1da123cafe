"""From a static batch to the whole engine in single changes, and what each was worth on one workload.

Every rung is the same `LLM` around the same weights, with one thing changed against the rung before, and answers
the same requests greedily to the same lengths. Requests outnumber slots, so that a freed slot can be refilled:
only then is it measured what refilling is worth. Tokens are equal on all rungs, so a rung's speed-up is a product:

    speed-up = (steps before / steps) × (seconds a step before / seconds a step)

The whole ladder is climbed as often as time allows and each rung's fastest ride counts: the first climb warms up
the very shapes that are timed, and what else the machine does in a while does not fall on one rung alone. Beside it
stands what models predict of it: notebook 01's utilization, and the simulator with a step cost that was fitted to
other rides, just before, of two thirds as many and other requests (`fit_costs`).
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
from lessonlib.simulation.compare import align
from lessonlib.simulation.costs import CostModel
from lessonlib.simulation.simulator import simulate
from lessonlib.trace import Trace
from lessonlib.utilization import continuous_utilization, static_utilization
from lessonlib.workload import Workload

TARGET_ERROR = 0.15  # of a predicted wall-clock time
TIMED_SEED, FITTED_SEED = 0, 1
FEWEST_STEPS = 5  # that a median is told of
# Settings that change how a step is launched.
LAUNCHES_BY = ("enforce_eager", "async_scheduling", "max_num_seqs")
NEEDS_GPU = "not measured here: needs a GPU"


@dataclass(frozen=True)
class Rung:
    """One change.

    Attributes:
        name: what is added.
        changes: settings of `LLM` that differ from the rung before.
        shows: the number that the change is there for, a key of `SHOWN`.
        needs_gpu: whether the change means nothing on a CPU.
    """

    name: str
    changes: Mapping[str, Any]
    shows: str
    needs_gpu: bool = False


def base_settings(load: Load) -> dict[str, Any]:
    """Settings of `LLM` that hold until a rung changes them: memory for each slot's longest sequence, and no more."""
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
    """The ladder, from the ground up."""
    return [
        Rung("static", {"policy": StaticBatching()}, "utilization"),
        Rung("continuous", {"policy": PrefillFirstReserved()}, "utilization"),
        Rung("+ paged", {"policy": PrefillFirst(), "max_num_seqs": load.paged_slots}, "riders"),
        Rung("+ chunked, mixed prefill", {"policy": SarathiServe(load.chunk_tokens)}, "itl_p99"),
        Rung("+ prefix cache", {"enable_prefix_caching": True}, "prefill_tokens"),
        Rung("+ graphs", {"enforce_eager": False}, "seconds_per_step", needs_gpu=True),
        Rung("+ overlapped host", {"async_scheduling": True}, "seconds_per_step", needs_gpu=True),
    ]


def climbs(load: Load) -> list[tuple[Rung, dict[str, Any]]]:
    """Each rung with all settings of its `LLM`: the changes up to it, one on another."""
    settings, there = base_settings(load), []
    for rung in rungs(load):
        settings = {**settings, **rung.changes}
        there.append((rung, settings))
    return there


# The number a rung is there for: what it is called, and how to read it off the rung's row, as a text.
SHOWN = {
    "utilization": ("utilization", lambda row: f"{row['utilization']:.1%}"),
    "riders": ("riders on board, mean", lambda row: f"{row['riders']:.1f}"),
    "itl_p99": ("between tokens, p99", lambda row: f"{1e3 * row['itl_seconds']['p99']:,.0f} ms"),
    "prefill_tokens": ("prompt tokens computed", lambda row: f"{row['prefill_tokens']:,}"),
    "seconds_per_step": ("a step", lambda row: f"{1e3 * row['seconds_per_step']:.2f} ms"),
}


# ----- measuring -----


def bench_engine(model: str | None = None, device: str = "auto", load: Load | None = None) -> dict[str, Any]:
    """Climb the ladder.

    Args:
        model: a folder, a hub name, "smollm2", or one of `simulation.costs.MODELS`, whose shape gets random
            weights. By default SmolLM2 on a CPU, and on a GPU the largest shape that it holds.
        device: "cpu", "cuda" or "auto".
        load: the requests and sizes; by default made for the device and the model.

    Returns:
        The machine; model, dtype and workload; copy_gb_s; cost_models by rung; and
        rungs, each with its numbers (`metrics.metrics` and more), what was predicted, and its
        ratios to the rung before. A rung that cannot be measured here says why.

    Raises `CourseError` for a model or device that is not there, or where memory is too small.
    """
    began = time.perf_counter()
    place = choose_device(device)
    bandwidth = copy_bandwidth(place)
    release_memory()
    llama, name = load_model(model, place)
    load = load or load_for(llama)
    ladder = Ladder(llama, load, bandwidth * 1e9)
    rows = ladder.climb()
    return {
        **machine("transformers", device=place.type),
        "tier": "gpu" if place.type == "cuda" else "cpu",
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
        llama: the weights that every rung shares.
        load: the requests and sizes.
        bandwidth: bytes a second that the device's memory moves.

    Attributes:
        costs: what a step costs, by rung.
    """

    def __init__(self, llama: Llama, load: Load, bandwidth: float) -> None:
        self.llama, self.load, self.bandwidth = llama, load, bandwidth
        vocabulary = llama.config.vocab_size
        self.timed = Requests.draw(load, vocabulary, TIMED_SEED)
        fewer = replace(load, requests=max(2, load.requests * 2 // 3))  # on a GPU enough to fill every slot
        self.other = Requests.draw(fewer, vocabulary, FITTED_SEED)
        self.costs: dict[str, CostModel] = {}
        self._steps = climbs(load)
        self._rides: dict[str, list[Trace]] = defaultdict(list)
        self._others: dict[str, list[Trace]] = defaultdict(list)  # the ride before each of those

    def climb(self) -> list[dict[str, Any]]:
        """A row for each rung."""
        self._ride_all()
        self.costs = fit_costs(self._others, self._steps)
        rows: list[dict[str, Any]] = []
        before: dict[str, Any] | None = None
        for rung, settings in self._steps:
            row: dict[str, Any] = {"rung": rung.name, "changes": _plain(rung.changes), "shows": rung.shows}
            if self._is_here(rung):
                row |= {"measured": True, **self._numbers(self._rides[rung.name])}
                row["decode_seconds"] = decode_seconds([*self._others[rung.name], *self._rides[rung.name]])
                row["against_before"] = ratios(before, row) if before else None
                row["predicted"] = self._predict(rung, settings, row)
                before = row
            else:
                row |= {"measured": False, "why": NEEDS_GPU}
            rows.append(row)
        return rows

    def _is_here(self, rung: Rung) -> bool:
        return not rung.needs_gpu or self.llama.device.type == "cuda"

    def _ride_all(self) -> None:
        there = [(rung, settings) for rung, settings in self._steps if self._is_here(rung)]
        began = time.perf_counter()
        with tqdm(total=2 * self.load.repeats * len(there), desc="ladder", unit="ride") as bar:
            for done in range(self.load.repeats):
                if done and (time.perf_counter() - began) * (done + 1) / done > self.load.time_limit:
                    return
                for rung, settings in there:
                    self._ride_one(rung, settings, bar)

    def _ride_one(self, rung: Rung, settings: Mapping[str, Any], bar: tqdm) -> None:
        bar.set_description(rung.name)
        llm = LLM(self.llama, **settings)
        self._others[rung.name].append(_ride(llm, self.other, bar))
        self._rides[rung.name].append(_ride(llm, self.timed, bar))
        llm.close()

    def _numbers(self, traces: Sequence[Trace]) -> dict[str, Any]:
        """The metrics of the fastest ride, a step's mean time, and the share of the roofline."""
        trace = min(traces, key=lambda trace: trace.span)
        moved = trace.num_steps * self.llama.weight_bytes
        moved += int(kv_tokens(trace).sum()) * kv_bytes_per_block(self.llama, 1)
        return {
            "rides_seconds": [each.span for each in traces],
            **metrics(trace),
            "seconds_per_step": trace.span / trace.num_steps,
            "riders": float(np.average(trace.steps["running"])),
            "bytes_moved": moved,
            "roofline_share": moved / self.bandwidth / trace.span,
        }

    def _predict(self, rung: Rung, settings: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
        """What notebook 01 and the simulator say of the rung, and how far they are off (0.1: 10% too much)."""
        ride = predict(self.timed, settings, self.costs[rung.name])
        lengths, slots = self.timed.output_tokens, settings["max_num_seqs"]
        formula = (
            static_utilization if settings["policy"].name == StaticBatching.name else continuous_utilization
        )
        plain = formula(lengths, slots)
        return {
            "seconds": ride.span,
            "seconds_error": ride.span / row["seconds"] - 1,
            "steps": ride.num_steps,
            "steps_error": ride.num_steps / row["steps"] - 1,
            "utilization": ride.utilization,
            "utilization_notebook_01": plain,
            "utilization_notebook_01_error": plain / row["utilization"] - 1,
        }


def _ride(llm: LLM, requests: Requests, bar: tqdm) -> Trace:
    """One ride of everyone, prefixes forgotten before it."""
    llm.reset_prefix_cache()
    params = [
        SamplingParams(max_tokens=count, temperature=0, ignore_eos=True) for count in requests.output_tokens
    ]
    llm.generate([{"prompt_token_ids": ids} for ids in requests.prompts], params, use_tqdm=False)
    bar.update()
    return llm.trace


def fit_costs(
    rides: Mapping[str, Sequence[Trace]], steps: Sequence[tuple[Rung, Mapping[str, Any]]]
) -> dict[str, CostModel]:
    """What a step costs, by rung, from the rides of each rung.

    A machine has slow minutes, and a ride that met one would take it for the cost of what was on board. So each
    step counts with the least it took on any climb: all climbs plan the same steps. And rungs that launch their
    steps in the same way are fitted together: whom a policy boards does not change what a step costs. How many may
    board does: for few rows a GPU's engine launches products of its own, which take its host longer. A rung of few
    slots launches nothing else; the fit of one with more is a mean of both.
    """
    alike: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for rung, settings in steps:
        if rung.name in rides:
            alike[tuple(settings[name] for name in LAUNCHES_BY)].append(rung.name)
    costs: dict[str, CostModel] = {}
    for names in alike.values():
        costs |= dict.fromkeys(names, CostModel.fit(*(_least(rides[name]) for name in names)))
    return costs


def _least(rides: Sequence[Trace]) -> Trace:
    """A ride whose steps each take the least that they took on any of these, which planned the same steps."""
    durations = np.min([ride.steps["duration"] for ride in rides], axis=0)
    return replace(rides[0], steps={**rides[0].steps, "duration": durations})


def decode_seconds(rides: Sequence[Trace]) -> dict[str, float]:
    """By how many ride (a text, for JSON), the median of what steps took in which everyone decodes, five or more."""
    riders = np.concatenate([decode_rows(ride) * (prefill_tokens(ride) == 0) for ride in rides])
    took = np.concatenate([ride.steps["duration"] for ride in rides])
    counts, times = np.unique(riders[riders > 0], return_counts=True)
    often = counts[times >= FEWEST_STEPS].tolist()
    return {str(count): float(np.median(took[riders == count])) for count in often}


def predict(requests: Requests, settings: Mapping[str, Any], cost: CostModel) -> Trace:
    """The ride that the simulator gives the same requests, under the same settings."""
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
    """How many times faster a rung is than the one before, and the two factors of it."""
    steps = before["steps"] / row["steps"]
    step = before["seconds_per_step"] / row["seconds_per_step"]
    return {"speed": before["seconds"] / row["seconds"], "fewer_steps": steps, "quicker_steps": step}


def _plain(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings ready for JSON: a policy by its name and what it was given."""
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
    ("rides", lambda row: " ".join(f"{span:.2f}" for span in row["rides_seconds"])),
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
    ridden = [row for row in result["rungs"] if row["measured"]]
    missing = [f"{row['rung']}: {row['why']}" for row in result["rungs"] if not row["measured"]]
    parts = [
        _heading(result),
        "Measured\n" + _table(ridden, COLUMNS),
        "What each change is for, and what its speed-up is made of\n" + _changes(ridden),
        "Predicted, and how far off\n" + _table(ridden, PREDICTED),
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
        words, show = SHOWN[row["shows"]]
        made_of = row["against_before"]
        cells = [row["rung"], words, show(before) if before else "", show(row)]
        if made_of:
            speed, fewer, quicker = (
                f"{made_of[name]:.2f}" for name in ("speed", "fewer_steps", "quicker_steps")
            )
            cells += [speed, "=", fewer, "x", quicker]
        lines.append(cells + [""] * (9 - len(cells)))
    return align(lines)
