"""Variants of the prefill and decode kernels beside the present ones and FlashAttention 3 (an experiment).

PYTHONPATH=. python benchmarks/tune_prefill.py --out FILE.json
"""

import argparse
import functools
import json
import multiprocessing
import time
from typing import Any

import torch

from benchmarks import attention_before, prefill_variants, prefill_variants2, prefill_variants3
from kernels import attention, bench
from kernels.attention import DecodeConfig
from kernels.bench import DECODE_ROWS, NUM_HEADS, PREFILL_ROWS, Batch, decode_batch, time_in_turn

# name: (pipelined over the loop's border, query through registers, rows, tile, warps, stages, registers)
PREFILL: dict[str, tuple] = {
    "lean 128x64 8w 2s 128r": (False, False, 128, 64, 8, 2, 128),
    "lean 128x64 8w 3s": (False, False, 128, 64, 8, 3, None),
    "ahead 128x32 8w 3s 128r": (True, False, 128, 32, 8, 3, 128),
    "ahead 128x32 8w 4s 128r": (True, False, 128, 32, 8, 4, 128),
    "diag 128x64 8w 2s 128r": ("diag", False, 128, 64, 8, 2, 128),
    "diag 128x64 8w 2s 128r ids": ("diag", True, 128, 64, 8, 2, 128),
    "last 128x64 8w 2s 128r": ("last", False, 128, 64, 8, 2, 128),
    "diag 128x32 8w 4s 128r ids": ("diag", True, 128, 32, 8, 4, 128),
    "diag 128x32 8w 3s 128r ids": ("diag", True, 128, 32, 8, 3, 128),
    "diag 128x64 8w 3s ids": ("diag", True, 128, 64, 8, 3, None),
    "diag 128x64 8w 4s ids": ("diag", True, 128, 64, 8, 4, None),
    "diag 128x128 8w 3s ids": ("diag", True, 128, 128, 8, 3, None),
    "diag 64x64 4w 2s ids": ("diag", True, 64, 64, 4, 2, None),
}
# name: (module, tile, programs a processor, warps, stages, registers)
DECODE: dict[str, tuple] = {
    "before": ("before", 64, 4, 4, 2, 128),
    "whole rows": ("now", 64, 4, 4, 2, 128),
}
MODULES = {"before": attention_before, "now": attention}


def _calls(batch: Batch, module: Any, patches: dict[str, Any]) -> list:
    """Calls of a module's paged_attention with some of its names replaced, for each of the batch's caches."""
    query = batch.query
    num_heads, num_kv_heads = query.shape[1], batch.caches[0][0].shape[2]
    kept = {name: getattr(module, name) for name in patches}

    def patched(function, *arguments, **options):
        for name, value in patches.items():
            setattr(module, name, value)
        try:
            return function(*arguments, **options)
        finally:
            for name, value in kept.items():
                setattr(module, name, value)

    workspace = patched(
        module.make_workspace, num_heads, num_kv_heads, bench.HEAD_DIM, query.dtype, query.device
    )
    return [
        functools.partial(
            patched, module.paged_attention, query, keys, values, batch.block_table, batch.seq_lens,
            batch.query_start_loc, scale=batch.scale, num_decodes=batch.num_decodes,
            max_query_len=max(batch.query_lens), max_seq_len=max(batch.lengths), workspace=workspace,
            out=torch.empty_like(query),
        )
        for keys, values in batch.caches
    ]  # fmt: skip


def prefill_calls(batch: Batch, name: str) -> list:
    if name in MODULES:
        return _calls(batch, MODULES[name], {})
    variants = {"diag": prefill_variants2, "last": prefill_variants3}.get(name[:4], prefill_variants)
    launch = functools.partial(variants.launch, config=PREFILL[name])
    return _calls(batch, attention, {"_prefill": launch})


def decode_calls(batch: Batch, name: str) -> list:
    module, tile, programs, warps, stages, registers = DECODE[name]
    processors = torch.cuda.get_device_properties(0).multi_processor_count
    config = DecodeConfig(tile, programs * processors, warps, stages, registers)
    return _calls(batch, MODULES[module], {"decode_config": lambda *_: config})


def compile_one(job: tuple[str, str]) -> str:
    kind, name = job
    try:
        for kv_heads in (8, 32):
            batch = Batch([(64, 300)] if kind == "prefill" else [(1, 300)], NUM_HEADS, kv_heads, "cuda")
            batch.caches = batch.caches[:1]
            (prefill_calls if kind == "prefill" else decode_calls)(batch, name)[0]()
            torch.cuda.synchronize()
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return ""


def measure(kind: str, row: str, batch: Batch, names: list[str], until: float) -> dict[str, Any]:
    make = prefill_calls if kind == "prefill" else decode_calls
    contenders = {name: make(batch, name) for name in names}
    due = contenders["before"][0]().float()
    wrong = {}
    for name in names:
        difference = ((contenders[name][0]().float() - due).norm() / due.norm()).item()
        if not difference < 1e-2:
            wrong[name] = difference
    contenders |= bench.peers(batch, False)
    if time.perf_counter() > until:
        return {"row": row, "wrong": wrong, "us": {}}
    micros = time_in_turn(contenders, rounds=25)
    best = micros.get("flash_attention_3", micros["before"])
    print(f"\n{row}", {name: f"{value:.1e}" for name, value in wrong.items()} or "", flush=True)
    for name, value in micros.items():
        print(f"  {name:28} {value:8.1f} us  {best / value:.3f} of FA3  {micros['before'] / value:.3f} x before")
    return {"row": row, "wrong": wrong, "us": micros}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seconds", type=float, default=140)
    arguments = parser.parse_args()
    until = time.perf_counter() + arguments.seconds
    jobs = [("prefill", name) for name in (*MODULES, *PREFILL)] + [("decode", name) for name in DECODE]
    began = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(8) as pool:
        failures = dict(zip(jobs, pool.map(compile_one, jobs, chunksize=1), strict=True))
    print(f"compiled in {time.perf_counter() - began:.0f} s", {k: v for k, v in failures.items() if v}, flush=True)
    result: dict[str, Any] = {**bench.machine(), "failures": {str(k): v for k, v in failures.items() if v}}
    result |= {"prefill": [], "decode": []}
    good = [name for kind, name in jobs if kind == "prefill" and not failures[kind, name]]
    for row, seqs, kv_heads in PREFILL_ROWS:
        result["prefill"].append(measure("prefill", row, Batch(seqs, NUM_HEADS, kv_heads, "cuda"), good, until))
    good = [name for name in DECODE if not failures["decode", name]]
    for shape in DECODE_ROWS[2:4]:
        batch = decode_batch(*shape, "cuda")
        result["decode"].append(measure("decode", str(shape), batch, good, until))
        del batch
        torch.cuda.empty_cache()
    with open(arguments.out, "w") as file:
        json.dump(result, file, indent=1)
    print("done in", round(time.perf_counter() - began), "s")


if __name__ == "__main__":
    main()
