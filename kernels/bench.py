"""Paged attention measured beside its peers: ``python -m kernels.bench --out FILE.json``.

Every row times this package's kernel, and FlashAttention 3 and vLLM's Triton kernel where `vllm` can be
imported, in one process and in turn: the ratio of two medians from one run is the figure that travels. Times
come from CUDA-graph replays, so no launch overhead is in them. Rows smaller than a few times the GPU's cache
rotate among several caches, so that keys and values come from memory and not from the row before.
"""

import argparse
import functools
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from kernels import ladder
from kernels.attention import make_workspace, paged_attention
from kernels.machine import copy_bandwidth, machine
from kernels.validate import INTERPRETED

Call = Callable[[], Any]

HEAD_DIM, BLOCK_SIZE, NUM_HEADS = 128, 16, 32


TRITON_DIMS = (64, 128, 256)  # what vLLM's Triton kernel is asked for here


class DecodeRow(NamedTuple):
    """A decode batch: one token from each of ``batch`` sequences, and one long sequence more where ``longest``."""

    batch: int
    context: int
    num_heads: int
    num_kv_heads: int
    ragged: bool = False
    head_dim: int = HEAD_DIM
    longest: int = 0

    @property
    def name(self) -> str:
        """As it stands in results."""
        dim = f", head_dim {self.head_dim}" if self.head_dim != HEAD_DIM else ""
        long = f" + 1 x {self.longest}" if self.longest else ""
        length = f"{'ragged up to ' if self.ragged else ''}{self.context}"
        return f"{self.batch} x {length}{long}, {self.num_heads}/{self.num_kv_heads}{dim}"

    def lengths(self) -> list[int]:
        """Tokens of context; ragged ones lie between a sixteenth of ``context`` and all of it."""
        torch.manual_seed(0)
        shortest, size = self.context // 16, (self.batch,)
        many = (
            torch.randint(shortest, self.context + 1, size).tolist()
            if self.ragged
            else [self.context] * self.batch
        )
        return [*many, self.longest] if self.longest else many


class PrefillRow(NamedTuple):
    """A batch that reads prompts: (query tokens, context) of each sequence."""

    name: str
    seqs: list[tuple[int, int]]
    num_heads: int
    num_kv_heads: int
    head_dim: int = HEAD_DIM


# The shapes that the kernel was tuned on come first, the others after them.
DECODE_ROWS = (
    DecodeRow(64, 1024, 32, 32),
    DecodeRow(64, 1024, 32, 32, ragged=True),
    DecodeRow(64, 2048, 32, 8),
    DecodeRow(64, 2048, 32, 8, ragged=True),
    DecodeRow(8, 8192, 32, 8),
    DecodeRow(1, 8192, 32, 8),
    DecodeRow(1, 32768, 32, 8),
    DecodeRow(256, 512, 32, 8),
    DecodeRow(128, 4096, 32, 8, ragged=True),
    # One K/V head of a card's share: Llama-3-70B on eight cards.
    DecodeRow(64, 4096, 8, 1),
    DecodeRow(64, 4096, 8, 1, ragged=True),
    # Groups of 5 (Qwen3-14B) and of 7 (Qwen2.5-7B).
    DecodeRow(32, 2048, 40, 8),
    DecodeRow(64, 2048, 40, 8, ragged=True),
    DecodeRow(32, 4096, 28, 4),
    DecodeRow(64, 4096, 28, 4, ragged=True),
    # Heads of other sizes: Llama-3.2-1B, Phi-3-mini, Gemma-2-9B.
    DecodeRow(64, 2048, 32, 8, head_dim=64),
    DecodeRow(32, 2048, 32, 32, head_dim=96),
    DecodeRow(32, 2048, 16, 8, head_dim=256),
    DecodeRow(1, 131072, 32, 8),
    DecodeRow(63, 512, 32, 8, longest=131072),
)

_draw = random.Random(0)
PREFILL_ROWS = (
    PrefillRow("8 x 512", [(512, 512)] * 8, 32, 8),
    PrefillRow("4 x 2048", [(2048, 2048)] * 4, 32, 8),
    PrefillRow("4 x 2048, 32/32 heads", [(2048, 2048)] * 4, 32, 32),
    PrefillRow("1 x 8192", [(8192, 8192)], 32, 8),
    PrefillRow(
        "16 ragged, 64 to 2048", [(n, n) for n in (_draw.randint(64, 2048) for _ in range(16))], 32, 8
    ),
    PrefillRow("4 chunks of 512 ending at 4096", [(512, 4096)] * 4, 32, 8),
    PrefillRow(
        "60 decodes at 1024 + one chunk of 512 ending at 2048", [(1, 1024)] * 60 + [(512, 2048)], 32, 8
    ),
    PrefillRow("2 x 6000, 28/4 heads", [(6000, 6000)] * 2, 28, 4),
    PrefillRow("one chunk of 2048 ending at 30000", [(2048, 30000)], 32, 8),
    PrefillRow("8 x 1024, 8/1 heads", [(1024, 1024)] * 8, 8, 1),
    PrefillRow("4 x 2048, head_dim 64", [(2048, 2048)] * 4, 32, 8, 64),
    PrefillRow("2 x 4096, 16/8 heads, head_dim 256", [(4096, 4096)] * 2, 16, 8, 256),
)


def dtype_on(device: str) -> torch.dtype:
    """bfloat16 on a GPU that has it and float16 on an older one; float32 on a CPU."""
    if device == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


class Batch:
    """One random batch: permuted blocks, and as many copies of the caches as it takes to outgrow the L2."""

    def __init__(
        self,
        seqs: list[tuple[int, int]],
        num_heads: int,
        num_kv_heads: int,
        device: str,
        head_dim: int = HEAD_DIM,
    ) -> None:
        torch.manual_seed(0)
        self.head_dim = head_dim
        dtype = dtype_on(device)
        self.query_lens = [new for new, _ in seqs]
        self.lengths = [length for _, length in seqs]
        self.num_decodes = next((at for at, new in enumerate(self.query_lens) if new != 1), len(seqs))
        needs = [-(-length // BLOCK_SIZE) for length in self.lengths]
        order = torch.randperm(sum(needs)).to(torch.int32) + 1
        table = torch.zeros(len(seqs), max(needs), dtype=torch.int32)
        for seq, ids in enumerate(order.split(needs)):
            table[seq, : needs[seq]] = ids
        self.block_table = table.to(device)
        self.seq_lens = torch.tensor(self.lengths, dtype=torch.int32, device=device)
        starts = [0, *torch.tensor(self.query_lens).cumsum(0).tolist()]
        self.query_start_loc = torch.tensor(starts, dtype=torch.int32, device=device)
        self.query = torch.randn(starts[-1], num_heads, head_dim, dtype=dtype, device=device)
        shape = (sum(needs) + 1, BLOCK_SIZE, num_kv_heads, head_dim)
        self.kv_bytes = 2 * sum(self.lengths) * num_kv_heads * head_dim * dtype.itemsize
        copies = max(1, min(8, -(-(400 << 20) // self.kv_bytes))) if device == "cuda" else 1
        self.caches = [
            (torch.randn(shape, dtype=dtype, device=device), torch.randn(shape, dtype=dtype, device=device))
            for _ in range(copies)
        ]
        self.scale = head_dim**-0.5
        self.flops = sum(
            4 * num_heads * head_dim * (new * (length - new) + new * (new + 1) / 2) for new, length in seqs
        )

    def ours(self) -> list[Call]:
        query, out = self.query, torch.empty_like(self.query)
        num_heads, num_kv_heads = query.shape[1], self.caches[0][0].shape[2]
        workspace = make_workspace(num_heads, num_kv_heads, self.head_dim, query.dtype, query.device)
        return [
            functools.partial(
                paged_attention,
                query,
                keys,
                values,
                self.block_table,
                self.seq_lens,
                self.query_start_loc,
                scale=self.scale,
                num_decodes=self.num_decodes,
                max_query_len=max(self.query_lens),
                max_seq_len=max(self.lengths),
                workspace=workspace,
                out=out,
            )
            for keys, values in self.caches
        ]

    def flash_attention_3(self, most_splits: int | None = None) -> list[Call]:
        """FlashAttention 3: left to itself, or planned ahead once for all layers of a step, as vLLM calls it.

        Args:
            most_splits: None: the call plans for itself. Else `get_scheduler_metadata` plans ahead with this bound on
                the splits of a sequence; 0 leaves the number to it. vLLM takes 32 where it captures CUDA graphs.
        """
        from vllm.vllm_flash_attn import flash_attn_varlen_func

        ahead = {}
        if most_splits is not None:
            ahead = {"scheduler_metadata": self._metadata(most_splits), "num_splits": most_splits}
        return [
            functools.partial(
                flash_attn_varlen_func,
                self.query,
                keys,
                values,
                max_seqlen_q=max(self.query_lens),
                cu_seqlens_q=self.query_start_loc,
                max_seqlen_k=max(self.lengths),
                seqused_k=self.seq_lens,
                causal=True,
                softmax_scale=self.scale,
                block_table=self.block_table,
                out=torch.empty_like(self.query),
                fa_version=3,
                **ahead,
            )
            for keys, values in self.caches
        ]

    def _metadata(self, most_splits: int) -> torch.Tensor:
        from vllm.vllm_flash_attn import get_scheduler_metadata

        return get_scheduler_metadata(
            batch_size=len(self.lengths),
            max_seqlen_q=max(self.query_lens),
            max_seqlen_k=max(self.lengths),
            num_heads_q=self.query.shape[1],
            num_heads_kv=self.caches[0][0].shape[2],
            headdim=self.head_dim,
            cache_seqlens=self.seq_lens,
            qkv_dtype=self.query.dtype,
            cu_seqlens_q=self.query_start_loc,
            page_size=BLOCK_SIZE,
            causal=True,
            num_splits=most_splits,
        )

    def vllm_triton(self, split: bool) -> list[Call]:
        from vllm.v1.attention.ops.triton_unified_attention import unified_attention

        num_tokens, num_heads, _ = self.query.shape
        segments = 16
        partials = torch.empty(num_tokens, num_heads, segments, self.head_dim, device="cuda")
        best = torch.empty(num_tokens, num_heads, segments, device="cuda")
        return [
            functools.partial(
                unified_attention,
                q=self.query,
                k=keys,
                v=values,
                out=torch.empty_like(self.query),
                cu_seqlens_q=self.query_start_loc,
                max_seqlen_q=max(self.query_lens),
                seqused_k=self.seq_lens,
                max_seqlen_k=max(self.lengths),
                softmax_scale=self.scale,
                causal=True,
                window_size=(-1, -1),
                block_table=self.block_table,
                softcap=0,
                q_descale=None,
                k_descale=None,
                v_descale=None,
                seq_threshold_3D=10**9 if split else 0,
                num_par_softmax_segments=segments,
                softmax_segm_output=partials,
                softmax_segm_max=best,
                softmax_segm_expsum=torch.empty_like(best),
            )
            for keys, values in self.caches
        ]


def time_in_turn(contenders: dict[str, list[Call]], rounds: int = 25) -> dict[str, float]:
    """Median microseconds of one call of each contender, measured in turn from CUDA-graph replays."""
    graphs: dict[str, tuple[torch.cuda.CUDAGraph, int]] = {}
    for name, calls in contenders.items():
        for call in calls:
            call()
        torch.cuda.synchronize()
        began = time.perf_counter()
        calls[0]()
        torch.cuda.synchronize()
        passes = max(1, min(20, round(1e-3 / (time.perf_counter() - began) / len(calls))))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls * passes:
                call()
        graphs[name] = graph, passes * len(calls)
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for _ in range(rounds):
        for name, (graph, count) in graphs.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            times[name].append(start.elapsed_time(end) * 1e3 / count)
    return {name: statistics.median(values[2:]) for name, values in times.items()}


def peers(batch: Batch, decode: bool) -> dict[str, list[Call]]:
    """The peers that can be imported here, FlashAttention 3 in every form that vLLM may call it in."""
    try:
        contenders = {"flash_attention_3": batch.flash_attention_3()}
    except ImportError:
        return {}
    contenders["flash_attention_3_ahead"] = batch.flash_attention_3(most_splits=0)
    if decode:
        contenders["flash_attention_3_ahead_32"] = batch.flash_attention_3(most_splits=32)
    if batch.head_dim in TRITON_DIMS:
        contenders["vllm_triton"] = batch.vllm_triton(split=False)
        if decode:
            contenders["vllm_triton_split"] = batch.vllm_triton(split=True)
    return contenders


def decode_batch(row: DecodeRow, device: str) -> Batch:
    """A decode row's batch."""
    seqs = [(1, length) for length in row.lengths()]
    return Batch(seqs, row.num_heads, row.num_kv_heads, device, row.head_dim)


def prefill_batch(row: PrefillRow, device: str) -> Batch:
    """A prefill row's batch."""
    return Batch(row.seqs, row.num_heads, row.num_kv_heads, device, row.head_dim)


def _measure(name: str, batch: Batch, decode: bool, copy_gb_s: float) -> dict[str, Any]:
    contenders = {"ours": batch.ours(), **peers(batch, decode)}
    micros = time_in_turn(contenders)
    row: dict[str, Any] = {
        "row": name,
        "kv_mb": batch.kv_bytes / 1e6,
        "caches": len(batch.caches),
        "us": micros,
    }
    if forms := [each for each in contenders if each.startswith("flash_attention_3")]:
        out = contenders["ours"][0]().float()
        expected = {form: contenders[form][0]().float() for form in forms}
        best = min(forms, key=micros.__getitem__)
        row["best_flash_attention_3"] = best
        row["difference_to_flash_attention_3"] = max(
            ((out - each).norm() / each.norm()).item() for each in expected.values()
        )
        row["speed_of_flash_attention_3"] = micros[best] / micros["ours"]
        if triton := [value for each, value in micros.items() if "vllm" in each]:
            row["speed_of_vllm_triton"] = min(triton) / micros["ours"]
    if decode:
        row["gb_s"] = {each: batch.kv_bytes / value / 1e3 for each, value in micros.items()}
        row["share_of_copy"] = {each: value / copy_gb_s for each, value in row["gb_s"].items()}
    else:
        row["tflop_s"] = {each: batch.flops / value / 1e6 for each, value in micros.items()}
    return row


def bench_ladder(copy_gb_s: float) -> list[dict[str, Any]]:
    """Time each rung of ``kernels.ladder`` and the kernel itself: one head, a full batch, a long one."""
    one = Batch([(1, 2048)], 1, 1, "cuda")
    query, (keys, values), blocks = one.query[0, 0], one.caches[0], one.block_table[0]
    flat = [cache[blocks.long()].flatten(0, 2) for cache in (keys, values)]
    options = {"scale": one.scale}
    took = time.perf_counter()
    ladder.loop(query, *flat, **options)
    torch.cuda.synchronize()
    took = time.perf_counter() - took
    rows: list[dict[str, Any]] = [
        {"rung": "loop", "batch": "1 x 2048, 1/1", "us": took * 1e6, "kv": one.kv_bytes}
    ]
    small: dict[str, list[Call]] = {
        "tiled": [functools.partial(ladder.tiled, query, *flat, **options)],
        "paged": [
            functools.partial(ladder.ragged, one.query, keys, values, blocks[None], one.seq_lens, **options)
        ],
    }
    for name, micros in time_in_turn(small).items():
        rows.append({"rung": name, "batch": "1 x 2048, 1/1", "us": micros, "kv": one.kv_bytes})
    for row in (DECODE_ROWS[2], DECODE_ROWS[3], DECODE_ROWS[6]):
        batch = decode_batch(row, "cuda")
        calls: dict[str, list[Call]] = {}
        for rung in (ladder.ragged, ladder.grouped):
            calls[rung.__name__] = [
                functools.partial(
                    rung, batch.query, *caches, batch.block_table, batch.seq_lens, scale=batch.scale
                )
                for caches in batch.caches
            ]
        for name, micros in time_in_turn({**calls, "paged_attention": batch.ours()}).items():
            rows.append({"rung": name, "batch": row.name, "us": micros, "kv": batch.kv_bytes})
    for each in rows:
        each["gb_s"] = each.pop("kv") / each["us"] / 1e3
        each["share_of_copy"] = each["gb_s"] / copy_gb_s
    return rows


def _bench_interpreter() -> dict[str, Any]:
    """Tiny shapes, to show that it runs. The times are the interpreter's and say nothing of a GPU."""
    if not INTERPRETED:
        # Too late to switch in this process: the kernels are already made for a GPU.
        code = "import json; from kernels.bench import bench_attention; print(json.dumps(bench_attention()))"
        environment = {**os.environ, "TRITON_INTERPRET": "1"}
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
        return json.loads(run.stdout)
    rows = []
    for name, seqs in (("2 decodes at 48", [(1, 48)] * 2), ("1 prompt of 32", [(32, 32)])):
        call = Batch(seqs, 4, 2, "cpu").ours()[0]
        began = time.perf_counter()
        call()
        rows.append({"row": name, "us": {"ours": (time.perf_counter() - began) * 1e6}})
    note = "The attention benchmark needs an NVIDIA GPU; these are tiny shapes in Triton's interpreter."
    return {"tier": "interpreter", "note": note, "interpreter": rows}


def bench_attention(decode: bool = True, prefill: bool = True, rungs: bool = True) -> dict[str, Any]:
    """Time decode and prefill rows beside the peers that are here; see the module's docstring.

    Returns:
        machine, versions, date, commit, command and tier. Tier "gpu" adds copy_gb_s and the lists decode and
        prefill: per row microseconds of each contender, GB/s of K/V and share of the copy bandwidth or
        TFLOP/s, and how fast this kernel is as a share of FlashAttention 3's best form and of vLLM's better Triton mode
        (above 1 is faster); and the list ladder, the rungs that lead to the kernel. Tier
        "interpreter" (no GPU) has a note and two tiny rows.
    """
    if INTERPRETED or not torch.cuda.is_available():
        return {**_bench_interpreter(), **machine()}
    copy_gb_s = copy_bandwidth("cuda")
    result: dict[str, Any] = {**machine(), "tier": "gpu", "head_dim": HEAD_DIM}
    result |= {"dtype": str(dtype_on("cuda")).removeprefix("torch.")}
    result |= {"block_size": BLOCK_SIZE, "copy_gb_s": copy_gb_s, "decode": [], "prefill": []}
    for row in DECODE_ROWS if decode else ():
        result["decode"].append(_measure(row.name, decode_batch(row, "cuda"), True, copy_gb_s))
    for prompts in PREFILL_ROWS if prefill else ():
        result["prefill"].append(_measure(prompts.name, prefill_batch(prompts, "cuda"), False, copy_gb_s))
    if rungs:
        result["ladder"] = bench_ladder(copy_gb_s)
    return result


def report(result: dict[str, Any]) -> str:
    """The result as lines for a terminal."""
    lines = [f"{result['machine']}, {result['versions']}, {result['date']}, tier {result['tier']}"]
    if result["tier"] == "interpreter":
        lines.append(result["note"])
    else:
        lines.append(f"device-to-device copy {result['copy_gb_s']:,.0f} GB/s")
    for row in result.get("decode", []) + result.get("prefill", []) + result.get("interpreter", []):
        cells = []
        for each, micros in row["us"].items():
            cell = f"{each} {micros:,.1f} us"
            if "share_of_copy" in row:
                cell += f" {row['gb_s'][each]:,.0f} GB/s {row['share_of_copy'][each]:.0%}"
            if "tflop_s" in row:
                cell += f" {row['tflop_s'][each]:,.0f} TFLOP/s"
            cells.append(cell)
        if "speed_of_flash_attention_3" in row:
            cells.append(f"{row['speed_of_flash_attention_3']:.2f} of FA3")
            if "speed_of_vllm_triton" in row:
                cells.append(f"{row['speed_of_vllm_triton']:.2f} of vLLM's Triton")
            cells.append(f"difference {row['difference_to_flash_attention_3']:.1e}")
        lines.append(f"{row['row']}: " + " | ".join(cells))
    for row in result.get("ladder", []):
        speed = f"{row['gb_s']:,.1f} GB/s {row['share_of_copy']:.1%}"
        lines.append(f"ladder, {row['batch']}: {row['rung']} {row['us']:,.1f} us {speed}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time paged attention beside its peers.")
    parser.add_argument("--out", metavar="FILE.json", help="write the result as JSON")
    arguments = parser.parse_args()
    result = bench_attention()
    print(report(result))
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump(result, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
