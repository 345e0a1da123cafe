"""Where a decode step's time goes: every kernel by PyTorch's profiler, the gaps between them, bytes over time.

    python -m benchmarks.timeline --out FOLDER                  # Llama-2-7B shapes on a GPU, SmolLM2 on a CPU
    python -m benchmarks.timeline --riders 1,64 --context 512   # others

All riders hold `context` tokens and a few more, and decode. Twenty steps are profiled, after eight that warm up; the
kernels of one of them are kept in order, with their starts. On a CPU the profiler sees PyTorch's operators. What Numba
compiled shows as gaps there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from kernels.machine import copy_bandwidth, machine
from lessonlib.engine import LLM, SamplingParams
from lessonlib.engine.frontend.options import choose_device
from lessonlib.engine.memory import kv_bytes_per_block
from lessonlib.engine.model import Llama
from lessonlib.files import write_whole
from lessonlib.ladder_load import load_model
from lessonlib.scheduling.policies import PrefillFirst

RIDERS = (1, 16, 64)
CONTEXT, STEPS, WARM_UP = 512, 20, 8
LONGEST_NAME = 80
BLOCK = 16  # tokens


class Span(NamedTuple):
    """A kernel, or an operator that no other called; microseconds."""

    name: str
    start: float
    duration: float

    @property
    def end(self) -> float:
        return self.start + self.duration


def on(device: torch.device, events: Iterable[Any]) -> list[Any]:
    """The profiler's events that ran on the device."""
    kind = DeviceType.CUDA if device.type == "cuda" else DeviceType.CPU
    return [event for event in events if event.device_type == kind]


def spans(events: Iterable[Any]) -> list[Span]:
    """Those that no other event holds, in order of their start."""
    found = [event for event in events if event.cpu_parent is None]
    told = [
        Span(event.name[:LONGEST_NAME], event.time_range.start, event.time_range.elapsed_us())
        for event in found
    ]
    return sorted(told, key=lambda span: span.start)


def busy(told: Sequence[Span]) -> float:
    """Microseconds in which anything ran; what overlaps counts once."""
    total, until = 0.0, float("-inf")
    for span in told:
        total += max(0.0, span.end - max(span.start, until))
        until = max(until, span.end)
    return total


def by_name(events: Iterable[Any], steps: int) -> list[dict[str, Any]]:
    """Each kernel's calls and microseconds a step without what it called, the longest first."""
    calls: dict[str, list[float]] = defaultdict(list)
    for event in events:
        on_gpu = event.device_type == DeviceType.CUDA
        calls[event.name[:LONGEST_NAME]].append(
            event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total
        )
    rows = [
        {"kernel": name, "calls": len(took) / steps, "us": sum(took) / steps} for name, took in calls.items()
    ]
    return sorted(rows, key=lambda row: -row["us"])


def measure(llama: Llama, riders: int, context: int, bandwidth: float) -> dict[str, Any]:
    """A row: one batch size."""
    tokens = WARM_UP + STEPS + 2
    blocks = riders * -(-(context + tokens) // BLOCK) + 1
    sizes = {
        "max_num_seqs": riders,
        "max_model_len": context + tokens,
        "num_blocks": blocks,
        "block_size": BLOCK,
        "skip_tokenizer_init": True,
    }
    # Nobody decodes before all prompts are read, so that all decode to the end.
    llm = LLM(llama, policy=PrefillFirst(), **sizes)
    params = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
    for rider in range(riders):
        llm.add_request(str(rider), {"prompt_token_ids": [rider + 3] * context}, params)
    while llm.scheduler.waiting or any(request.is_prefilling for request in llm.scheduler.running):
        llm.step()
    for _ in range(WARM_UP):
        llm.step()
    on_gpu = llama.device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        for _ in range(STEPS):
            llm.step()
        if on_gpu:
            torch.cuda.synchronize()
    assert len(llm.scheduler.running) == riders, "somebody was home before the last step"
    while llm.has_unfinished_requests():
        llm.step()
    llm.close()
    events = on(llama.device, profiler.events())
    told = spans(events)
    length = (told[-1].end - told[0].start) / STEPS
    held = context + 1 + WARM_UP + STEPS // 2
    read = llama.weight_bytes + riders * held * kv_bytes_per_block(llama, 1)
    one = told[len(told) // 2 : len(told) // 2 + len(told) // STEPS]
    return {
        "riders": riders,
        "context": context,
        "step_us": length,
        "busy_us": busy(told) / STEPS,
        "bytes_read": read,
        "roofline_share": read / bandwidth / (length / 1e6),
        "kernels": by_name(events, STEPS),
        "one_step": [
            [span.name, round(span.start - one[0].start, 1), round(span.duration, 1)] for span in one
        ],
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="as of `lesson bench engine`")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--riders", default=",".join(map(str, RIDERS)))
    parser.add_argument("--context", type=int, default=CONTEXT, help="tokens that each rider holds")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = choose_device(options.device)
    bandwidth = copy_bandwidth(device) * 1e9
    llama, words = load_model(options.model, device)
    counts = [int(count) for count in options.riders.split(",")]
    rows = [measure(llama, riders, options.context, bandwidth) for riders in tqdm(counts, disable=None)]
    for row in rows:
        share, gaps = row["roofline_share"], row["step_us"] - row["busy_us"]
        print(
            f"{row['riders']} riders: {row['step_us']:,.0f} us a step, {gaps:,.0f} in gaps, {share:.0%} of the roofline"
        )
        for kernel in row["kernels"][:8]:
            print(f"  {kernel['us']:>9,.1f} us in {kernel['calls']:>5,.0f} calls  {kernel['kernel']}")
    if options.out:
        told = {**machine(device=device.type), "model": words, "copy_gb_s": bandwidth / 1e9, "rows": rows}
        options.out.mkdir(parents=True, exist_ok=True)
        write_whole(options.out / f"timeline_{device.type}.json", json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
