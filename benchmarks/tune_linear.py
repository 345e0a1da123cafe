"""Times settings of the skinny product beside cuBLAS on this GPU; the winners stand in kernels/linear.py.

PYTHONPATH=. python benchmarks/tune_linear.py --out FILE.json [--steps-only]

Llama-2-7B's matrices, CUDA-graph replays, weights rotated past the L2; then the products of whole decode steps, with
the settings that stand in the file. The result is written after every shape.
"""

import argparse
import json
import multiprocessing
import statistics
import time
from pathlib import Path

import torch

from kernels import linear
from kernels.linear import LinearConfig, skinny_linear
from kernels.machine import copy_bandwidth, machine
from kernels.pointwise import rms_norm, silu_and_mul

BEGAN = time.perf_counter()
DEVICE, DTYPE = "cuda", torch.bfloat16
SHAPES = {  # rows of W, width
    "o": (4096, 4096), "down": (4096, 11008), "qkv": (12288, 4096), "gate_up": (22016, 4096),
    "lm_head": (32000, 4096),
}  # fmt: skip
LAYERS, TOKENS = 32, (1, 2, 4, 8, 16, 24, 32, 48, 64)


def few(rows, tile, warps, unroll=1):
    return LinearConfig(False, rows, tile, warps, unroll=unroll)


def more(rows, tile, warps, stages, split=1):
    return LinearConfig(True, rows, tile, warps, stages, split)


FEW = [
    few(4, 1024, 4), few(2, 1024, 4, 2), few(4, 1024, 4, 2), few(8, 1024, 4), few(4, 512, 2, 2), few(8, 512, 2),
    few(4, 2048, 8), few(2, 2048, 8), few(4, 256, 1, 4), few(8, 256, 1), few(1, 1024, 4, 4), few(2, 512, 2, 4),
]  # fmt: skip
MORE = [
    more(64, 128, 4, 4), more(64, 128, 4, 3), more(64, 64, 4, 6), more(64, 256, 4, 3), more(32, 128, 4, 5),
    more(32, 256, 4, 4), more(32, 256, 4, 3), more(16, 256, 2, 4), more(128, 64, 8, 4), more(128, 128, 8, 3),
]  # fmt: skip
SOME_MORE = [MORE[0], MORE[4], MORE[5], MORE[7], more(16, 512, 4, 3)]  # beside FEW, up to 4 tokens
AHEAD = (8, 32)


def candidates(tokens, rows):
    """Settings for one product; few rows get theirs with K split as well, so that 132 processors have work."""
    listed = FEW + SOME_MORE if tokens <= 4 else MORE
    found = []
    for config in listed:
        blocks = -(-rows // config.rows)
        found += [config] if blocks >= 64 or not config.tensor_cores else []
        if config.tensor_cores and blocks < 132:
            found += [config._replace(split=split) for split in (2, 4, 8) if 120 <= blocks * split <= 400]
    return found


def use(config, overlap=True):
    linear.linear_config = lambda *_: config
    linear.overlapping = lambda device: (
        {"OVERLAP": True, "launch_pdl": True} if overlap else {"OVERLAP": False}
    )


def compile_one(job):
    """In a process of its own, so that all cores compile; the result stays in Triton's cache on disk."""
    config, tokens = job
    try:
        use(config)
        x = torch.randn(tokens, 4096, dtype=DTYPE, device=DEVICE)
        skinny_linear(x, torch.randn(256, 4096, dtype=DTYPE, device=DEVICE))
        torch.cuda.synchronize()
    except Exception as error:
        return f"{config} x {tokens}: {type(error).__name__} {str(error)[:120]}"
    return ""


def compile_all():
    jobs = {
        (config, tokens)
        for tokens in TOKENS
        for rows, _ in SHAPES.values()
        for config in candidates(tokens, rows)
    }
    jobs |= {(config._replace(ahead=ahead), tokens) for config, tokens in jobs for ahead in AHEAD}
    with multiprocessing.get_context("spawn").Pool(14) as pool:
        failed = [line for line in pool.imap_unordered(compile_one, sorted(jobs), chunksize=4) if line]
    print(
        f"{len(jobs)} variants compiled, {len(failed)} failed, {time.perf_counter() - BEGAN:.0f} s",
        flush=True,
    )
    for line in failed[:20]:
        print("  ", line, flush=True)


def micros(calls, passes=1, rounds=9):
    """Median microseconds of one pass over `calls`, from replays of a graph with `passes` of them."""
    for call in calls:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(passes):
            for call in calls:
                call()
    times = []
    for _ in range(rounds + 2):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / passes)
    return statistics.median(times[2:])


def products(weights, x, out, function):
    return [lambda weight=weight: function(x, weight, out=out) for weight in weights]


def cublas(x, weight, out):
    torch.mm(x, weight.T, out=out)


def time_one(weights, x, out, due, config, overlap=True):
    """Microseconds a product, or None where the setting does not work."""
    try:
        use(config, overlap)
        skinny_linear(x, weights[0], out=out.fill_(float("nan")))
        error = ((out.float() - due).norm() / due.norm()).item()
        if not error < 1e-2:
            raise ValueError(f"relative error {error:.1e}")
        return micros(products(weights, x, out, skinny_linear), max(1, 24 // len(weights))) / len(weights)
    except Exception as error:
        print(f"   {tuple(config)}: {type(error).__name__} {str(error)[:150]}", flush=True)
        return None


def tune(name, tokens, weights):
    rows, width = SHAPES[name]
    x = torch.randn(tokens, width, dtype=DTYPE, device=DEVICE)
    out = torch.empty(tokens, rows, dtype=DTYPE, device=DEVICE)
    due = x.float() @ weights[0].float().T
    base = micros(products(weights, x, out, cublas), max(1, 24 // len(weights))) / len(weights)
    times = {config: time_one(weights, x, out, due, config) for config in candidates(tokens, rows)}
    ranked = sorted((config for config in times if times[config]), key=lambda config: times[config])
    for config in ranked[:2]:
        for ahead in AHEAD:
            asked = config._replace(ahead=ahead)
            times[asked] = time_one(weights, x, out, due, asked)
    ranked = sorted((config for config in times if times[config]), key=lambda config: times[config])
    best, size = ranked[0], weights[0].nbytes / 1e3
    plain = time_one(weights, x, out, due, best, overlap=False) or float("nan")
    # The best of each kernel stands in the line.
    other = next((config for config in ranked if config.tensor_cores != best.tensor_cores), None)
    line = (
        f"{name:8} M={tokens:2}: cuBLAS {base:6.1f} us {size / base:5.0f} GB/s | best {times[best]:6.1f} us "
    )
    line += f"{size / times[best]:5.0f} GB/s ({base / times[best]:.2f}x; without PDL {size / plain:5.0f}) {tuple(best)}"
    line += "".join(f" | {size / times[config]:.0f} {tuple(config)}" for config in ranked[1:4])
    if other:
        line += f" | other kernel {size / times[other]:.0f} {tuple(other)}"
    print(line, flush=True)
    return {
        "cublas_us": base, "best": tuple(best), "best_us": times[best], "without_pdl_us": plain,
        "weight_kb": size, "us": {str(tuple(config)): took for config, took in times.items()},
    }  # fmt: skip


def step(tokens, layers, head, product):
    """One decode step's products in order, with the norms and SiLU between them: a list of calls."""
    draw = {"dtype": DTYPE, "device": DEVICE}
    outs = {name: torch.empty(tokens, rows, **draw) for name, (rows, _) in SHAPES.items()}
    narrow, wide = (torch.randn(tokens, SHAPES[name][1], **draw) for name in ("o", "down"))
    stream, norm = torch.randn_like(narrow), torch.ones(narrow.shape[1], **draw)
    calls = []
    for layer in layers:
        calls += [
            lambda layer=layer: product(narrow, layer["qkv"], out=outs["qkv"]),
            lambda layer=layer: product(narrow, layer["o"], out=outs["o"]),
            lambda: rms_norm(outs["o"], norm, eps=1e-5, residual=stream, out=narrow),
            lambda layer=layer: product(narrow, layer["gate_up"], out=outs["gate_up"]),
            lambda: silu_and_mul(outs["gate_up"], out=wide),
            lambda layer=layer: product(wide, layer["down"], out=outs["down"]),
            lambda: rms_norm(outs["down"], norm, eps=1e-5, residual=stream, out=narrow),
        ]
    return [*calls, lambda: product(narrow, head, out=outs["lm_head"])]


def steps():
    """Milliseconds of a whole step's products by number of tokens, each layer with weights of its own."""

    def matrix(name):
        return torch.empty(SHAPES[name], dtype=DTYPE, device=DEVICE).normal_(0, 0.02)

    layers = [{name: matrix(name) for name in SHAPES if name != "lm_head"} for _ in range(LAYERS)]
    head = matrix("lm_head")
    total = sum(weight.nbytes for layer in layers for weight in layer.values()) + head.nbytes
    found = {}
    for tokens in TOKENS:
        row = {
            name: micros(step(tokens, layers, head, product), rounds=7) / 1e3
            for name, product in (("cublas", cublas), ("skinny", skinny_linear))
        }
        cells = ", ".join(
            f"{name} {took:.3f} ms ({total / took / 1e6:,.0f} GB/s)" for name, took in row.items()
        )
        print(
            f"{LAYERS} layers + head, M={tokens}: {cells}, {row['cublas'] / row['skinny']:.3f}x", flush=True
        )
        found[str(tokens)] = row
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seconds", type=float, default=120, help="no new shape and M after so many seconds")
    parser.add_argument(
        "--steps-only", action="store_true", help="only whole steps, with the settings as they stand"
    )
    arguments = parser.parse_args()
    path = Path(arguments.out)
    result = {**machine(), "copy_gb_s": copy_bandwidth("cuda"), "steps": steps(), "shapes": {}}
    path.write_text(json.dumps(result, indent=1))
    if arguments.steps_only:
        return
    compile_all()
    for name, (rows, width) in SHAPES.items():
        copies = max(2, -(-240_000_000 // (rows * width * 2)))
        weights = [
            torch.empty(rows, width, dtype=DTYPE, device=DEVICE).normal_(0, 0.02) for _ in range(copies)
        ]
        result["shapes"][name] = {}
        for tokens in TOKENS:
            if time.perf_counter() - BEGAN < arguments.seconds:
                result["shapes"][name][str(tokens)] = tune(name, tokens, weights)
        del weights
        path.write_text(json.dumps(result, indent=1))
    print(f"{time.perf_counter() - BEGAN:.0f} s, {path}", flush=True)


if __name__ == "__main__":
    main()
