"""The sampling kernel beside plain PyTorch, which sorts, and beside an argmax: microseconds for a step's rows.

    python -m benchmarks.sampling [--out FOLDER]

Needs an NVIDIA GPU. All are launched one by one, not replayed as a graph, so that the least times hold a launch.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kernels import reference
from kernels.machine import machine
from kernels.sampling import sample
from lessonlib.files import write_whole

SIZES = ((1, 32_000), (64, 32_000), (128, 32_000), (1, 128_256), (128, 128_256))  # rows, vocabulary
SETTINGS = {
    "temperature 0.7": {"temperature": 0.7},
    "top-p 0.95": {"temperature": 0.8, "top_p": 0.95},
    "top-k 50": {"temperature": 0.8, "top_k": 50},
    "both": {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
}
ROUNDS, CALLS = 7, 10


def columns(rows: int, vocabulary: int, settings: dict[str, float]) -> list[torch.Tensor]:
    """The same settings for every row; keys that differ."""
    seeds = torch.arange(rows)
    defaults = {"temperature": 1.0, "top_k": vocabulary, "top_p": 1.0}
    dtypes = {"temperature": torch.float64, "top_k": torch.int64, "top_p": torch.float64}
    values = defaults | settings
    made = [torch.full((rows,), values[name], dtype=dtype, device="cuda") for name, dtype in dtypes.items()]
    return [reference.draw_key(seeds, seeds).cuda(), *made]


def in_turn(calls: dict[str, Callable[[], Any]]) -> dict[str, dict[str, float]]:
    """Median, least and most microseconds of a call, over rounds in which all have their turn."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(ROUNDS + 1):
        for name, call in calls.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(CALLS):
                call()
            end.record()
            end.synchronize()
            if turn:  # the first one warms up
                taken[name].append(1_000 * start.elapsed_time(end) / CALLS)
    return {
        name: {
            "median": round(statistics.median(all_of), 1),
            "least": round(min(all_of), 1),
            "most": round(max(all_of), 1),
        }
        for name, all_of in taken.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for count, vocabulary in SIZES:
        logits = (3 * torch.randn(count, vocabulary, device="cuda")).bfloat16()
        for name, settings in SETTINGS.items():
            drawn = columns(count, vocabulary, settings)
            has_cuts = len(settings) > 1
            calls = {
                "kernel": partial(sample, logits, *drawn, has_cuts=has_cuts),
                "PyTorch": partial(reference.sample, logits, *drawn, has_cuts=has_cuts),
                "argmax": partial(logits.argmax, -1),
            }
            rows.append({"rows": count, "vocabulary": vocabulary, "settings": name, **in_turn(calls)})
            print(json.dumps(rows[-1]), flush=True)
    if options.out:
        result = {**machine(), "unit": "microseconds a call", "rows": rows}
        write_whole(options.out / "sampling.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
