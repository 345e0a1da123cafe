"""Times many settings of both attention kernels on this GPU; the winners stand in kernels/attention.py.

PYTHONPATH=. python benchmarks/tune_attention.py --out FILE.json
"""

import argparse
import itertools
import json
import multiprocessing
import time

import torch

from kernels import attention, bench
from kernels.attention import DecodeConfig, PrefillConfig
from kernels.bench import (
    DECODE_ROWS,
    NUM_HEADS,
    PREFILL_ROWS,
    Batch,
    decode_batch,
    prefill_batch,
    time_in_turn,
)

# (tile, num_warps, num_stages, max_registers) with each number of programs per processor
DECODE_KERNELS = (
    (64, 4, 3, None), (64, 4, 4, None), (64, 4, 3, 128), (64, 4, 2, None), (64, 4, 2, 128), (128, 4, 2, None),
    (128, 4, 3, None), (128, 8, 3, None), (128, 8, 2, None), (32, 2, 3, None), (32, 2, 4, None),
    (32, 4, 4, None), (32, 4, 4, 128), (64, 2, 3, None), (64, 8, 4, None), (128, 4, 2, 128), (32, 4, 2, 128),
    (32, 4, 2, None), (16, 4, 3, 128),
)  # fmt: skip
DECODE_PROGRAMS = (1, 2, 3, 4, 6, 8)
# (rows, tile, num_warps, num_stages, max_registers)
PREFILL_KERNELS = (
    (128, 64, 8, 2, None), (128, 64, 8, 3, None), (128, 64, 8, 4, None), (128, 64, 8, 2, 128),
    (128, 64, 8, 3, 128), (128, 128, 8, 2, None), (64, 64, 4, 2, None), (64, 64, 4, 3, None),
    (64, 32, 4, 3, None), (64, 32, 4, 4, None), (64, 128, 4, 2, None), (128, 32, 8, 3, 128),
    (128, 32, 8, 4, None), (128, 32, 4, 3, None), (128, 128, 8, 3, None), (128, 128, 8, 2, 128),
    (128, 64, 4, 2, None), (64, 32, 4, 2, None), (128, 32, 8, 2, None), (64, 64, 8, 2, 128),
)  # fmt: skip


def use(decode: DecodeConfig | None = None, prefill: PrefillConfig | None = None) -> None:
    if decode is not None:
        attention.decode_config = lambda *_: decode
    if prefill is not None:
        attention.prefill_config = lambda *_: prefill


def compile_one(job: tuple[str, tuple, int]) -> str:
    kind, knobs, head_dim = job
    try:
        for kv_heads in (8, 32):
            if kind == "decode":
                tile, warps, stages, registers = knobs
                use(decode=DecodeConfig(tile, 132, warps, stages, registers))
                batch = Batch([(1, 300)], NUM_HEADS, kv_heads, "cuda", head_dim)
            else:
                use(prefill=PrefillConfig(*knobs))
                batch = Batch([(64, 300)], NUM_HEADS, kv_heads, "cuda", head_dim)
            batch.caches = batch.caches[:1]
            batch.ours()[0]()
            torch.cuda.synchronize()
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:100]}"
    return ""


def tune(head_dim: int, rows: int) -> dict:
    began = time.perf_counter()
    jobs = [("decode", knobs) for knobs in DECODE_KERNELS] + [("prefill", knobs) for knobs in PREFILL_KERNELS]
    with multiprocessing.get_context("spawn").Pool(10) as pool:
        failures = dict(
            zip(jobs, pool.map(compile_one, [(*job, head_dim) for job in jobs], chunksize=1), strict=True)
        )
    print(
        f"compiled in {time.perf_counter() - began:.0f} s",
        {k: v for k, v in failures.items() if v},
        flush=True,
    )
    processors = torch.cuda.get_device_properties(0).multi_processor_count
    result: dict = {
        **bench.machine(),
        "failures": {str(k): v for k, v in failures.items()},
    }
    result |= {"decode": {}, "prefill": {}}
    good = [knobs for kind, knobs in jobs if kind == "prefill" and not failures[kind, knobs]]
    for prompts in PREFILL_ROWS[: min(rows, 6)]:
        batch = prefill_batch(prompts._replace(head_dim=head_dim), "cuda")
        times = {}
        for knobs in good:
            use(prefill=PrefillConfig(*knobs))
            times[str(knobs)] = time_in_turn({"ours": batch.ours()}, rounds=8)["ours"]
        result["prefill"][prompts.name] = times
        show(prompts.name, times, 4)
    good = [knobs for kind, knobs in jobs if kind == "decode" and not failures[kind, knobs]]
    for row in DECODE_ROWS[:rows]:
        batch = decode_batch(row._replace(head_dim=head_dim), "cuda")
        times = {}
        for (tile, warps, stages, registers), programs in itertools.product(good, DECODE_PROGRAMS):
            use(decode=DecodeConfig(tile, programs * processors, warps, stages, registers))
            knobs = (tile, warps, stages, registers, programs)
            times[str(knobs)] = time_in_turn({"ours": batch.ours()}, rounds=6)["ours"]
        result["decode"][row.name] = times
        show(row.name, times, 5)
    for kind in ("prefill", "decode"):
        tables = list(result[kind].values())
        loss = {k: [t[k] / min(t.values()) for t in tables] for k in tables[0]}
        mean = {k: sum(v) / len(v) for k, v in loss.items()}
        best = sorted(mean, key=mean.__getitem__)[:8]
        print(kind, "closest to the best over all rows:")
        for k in best:
            print("  ", k, f"mean {mean[k]:.3f}", [round(x, 3) for x in loss[k]], flush=True)
    return result


def show(name: str, times: dict[str, float], count: int) -> None:
    best = sorted(times, key=times.__getitem__)[:count]
    print(name, "|", "; ".join(f"{k} {times[k]:.1f}" for k in best), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--rows", type=int, default=9, help="only the first so many rows of the benchmark")
    arguments = parser.parse_args()
    outcome = tune(arguments.head_dim, arguments.rows)
    with open(arguments.out, "w") as file:
        json.dump(outcome, file, indent=1)
