"""A matrix product for few tokens: y = x Wᵀ, where reading W is all that takes time.

Each weight is read once and used once a token, so the product is as fast as W streams from memory. Two kernels:

*Up to 4 tokens* need no tensor cores. A thread multiplies 16 bytes of a row of W with as much of each token and
keeps its own sums over all of K; they are added up once, at the end.

*Up to 64 tokens* take them. The rows of W, not the few tokens, are the tall side of the tiles, since that is the
side that must be filled. Where W has too few rows for all processors, K is split: each share leaves a partial sum
in float32, and the program that is done last adds them up (the fix-up of Stream-K, Osama et al. 2023), always in
the same order. So a token's result depends neither on timing nor on the other tokens.

A program starts while the kernel before it still runs (see ``kernels.launch``). It knows its weights already: it asks
for the first of them, and only then waits for x.
"""

from functools import cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from kernels.cards import card_of, first_that_fits
from kernels.launch import overlapping
from kernels.validate import FLOATS, check_machine, check_tensor, upcast

MAX_TOKENS = 64


@triton.jit
def _ask_ahead(w_rows, first, width, LINES: tl.constexpr):
    """Bring the first LINES cache lines (of 128 bytes) of each row into the L2, without waiting for them."""
    LINE: tl.constexpr = 128 * 8 // w_rows.dtype.element_ty.primitive_bitwidth
    columns = tl.minimum(first + tl.arange(0, LINES) * LINE, width - 1)
    # Operands: $0, "=r", a 32-bit result that Triton asks for and nothing uses; $1, "l", the 64-bit address of a line.
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [w_rows + columns[None, :]], dtype=tl.int32,
        is_pure=False, pack=1,
    )  # fmt: skip


@triton.jit(do_not_specialize=["num_tokens"])
def _few_tokens_kernel(
    out, x, weight, num_tokens, num_rows, width, out_stride, x_stride, w_stride, TOKENS: tl.constexpr,
    ROWS: tl.constexpr, TILE: tl.constexpr, UNROLL: tl.constexpr, AHEAD: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    tokens = tl.arange(0, TOKENS)
    columns = tl.arange(0, TILE)
    present = (tokens < num_tokens)[:, None]
    # Rows beyond the last one read the last row's weights; their results are not stored.
    w_rows = weight + tl.minimum(rows, num_rows - 1).to(tl.int64)[:, None] * w_stride
    x_rows = x + tokens.to(tl.int64)[:, None] * x_stride
    if OVERLAP:
        gdc_launch_dependents()
    mask = (columns < width)[None, :]
    next_w = tl.load(w_rows + columns[None, :], mask=mask, other=0.0, eviction_policy="evict_first")
    if OVERLAP:
        if AHEAD > 0:
            _ask_ahead(w_rows, TILE, width, AHEAD)
        gdc_wait()
    # Eight neighbors (16 bytes) are one thread's: their sum needs no other thread.
    acc = tl.zeros([TOKENS, ROWS, TILE // 8], tl.float32)
    for start in tl.range(0, width, TILE, loop_unroll_factor=UNROLL):
        at = (start + columns)[None, :]
        xs = tl.load(x_rows + at, mask=present & (at < width), other=0.0).to(tl.float32)
        w = next_w.to(tl.float32)
        at += TILE
        next_w = tl.load(w_rows + at, mask=at < width, other=0.0, eviction_policy="evict_first")
        acc += tl.sum(xs.reshape(TOKENS, 1, TILE // 8, 8) * w.reshape(1, ROWS, TILE // 8, 8), 3)
    out_at = out + tokens.to(tl.int64)[:, None] * out_stride + rows[None, :]
    tl.store(out_at, tl.sum(acc, 2).to(out.dtype.element_ty), mask=present & (rows < num_rows)[None, :])


@triton.jit(do_not_specialize=["num_tokens"])
def _more_tokens_kernel(
    out, x, weight, partials, tickets, num_tokens, num_rows, width, out_stride, x_stride, w_stride,
    TOKENS: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, SPLIT: tl.constexpr,
    AHEAD: tl.constexpr, OVERLAP: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """ROWS rows of W over one of SPLIT shares of K."""
    block, part = tl.program_id(0), tl.program_id(1)
    rows = block * ROWS + tl.arange(0, ROWS)
    tokens = tl.arange(0, TOKENS)
    columns = tl.arange(0, TILE)
    present = (tokens < num_tokens)[None, :]
    w_rows = weight + tl.minimum(rows, num_rows - 1).to(tl.int64)[:, None] * w_stride
    x_rows = x + tokens.to(tl.int64)[None, :] * x_stride
    share = tl.cdiv(tl.cdiv(width, TILE), SPLIT) * TILE
    first = part * share
    if OVERLAP:
        gdc_launch_dependents()
        if AHEAD > 0:
            _ask_ahead(w_rows, first, width, AHEAD)
        gdc_wait()
    acc = tl.zeros([ROWS, TOKENS], tl.float32)
    for start in range(first, tl.minimum(first + share, width), TILE):
        at = start + columns
        inside = at < width
        w = tl.load(w_rows + at[None, :], mask=inside[None, :], other=0.0, eviction_policy="evict_first")
        xs = tl.load(x_rows + at[:, None], mask=present & inside[:, None], other=0.0)
        if UPCAST:
            w = w.to(tl.float32)
            xs = xs.to(tl.float32)
        acc = tl.dot(w, xs, acc, input_precision="ieee")

    last = True
    if SPLIT > 1:
        own = tl.arange(0, ROWS)[:, None] * TOKENS + tokens[None, :]
        sums = partials + block.to(tl.int64) * SPLIT * ROWS * TOKENS + own
        tl.store(sums + part * ROWS * TOKENS, acc)
        tl.debug_barrier()  # every thread's partial sums before the program's ticket
        last = tl.atomic_add(tickets + block, 1, sem="acq_rel") == SPLIT - 1
        if last:
            acc = tl.zeros([ROWS, TOKENS], tl.float32)
            for other in range(SPLIT):
                acc += tl.load(sums + other * ROWS * TOKENS, cache_modifier=".cg")
            tl.store(tickets + block, 0)  # as the next call wants it
    if last:
        out_at = out + tokens.to(tl.int64)[None, :] * out_stride + rows[:, None]
        tl.store(out_at, acc.to(out.dtype.element_ty), mask=present & (rows < num_rows)[:, None])


class LinearConfig(NamedTuple):
    """How a product is cut and compiled.

    rows and tile: of W, a program and a step; split: shares of K. split and num_stages are the tensor cores'
    kernel's, unroll is the other's. ahead: cache lines of a row that are asked for before x is there.
    """

    tensor_cores: bool
    rows: int
    tile: int
    num_warps: int
    num_stages: int = 1
    split: int = 1
    unroll: int = 1
    ahead: int = 0


# The settings below were measured on an H100 with Llama-2-7B's matrices in bfloat16
# (benchmarks/tune_linear.py, benchmarks/results/h100_tune_linear.json).


def padded_tokens(num_tokens: int) -> int:
    """Columns of a tile for the tensor cores. With 8, Triton 3.6 takes an older instruction, which was slower."""
    return max(16, triton.next_power_of_2(num_tokens))


def linear_config(
    num_tokens: int, num_rows: int, width: int, dtype: torch.dtype, device: torch.device
) -> LinearConfig:
    """The kernel and its settings for x [num_tokens, width] and W [num_rows, width]."""
    few, narrow = num_tokens <= 4, num_rows <= 8192
    if device.type == "cpu":
        return LinearConfig(not few, rows=16, tile=32, num_warps=4, split=2)
    if (few and narrow and width > 8192) or (num_tokens == 1 and not narrow):
        return LinearConfig(False, rows=4, tile=2048, num_warps=8, ahead=8 if narrow else 0)
    if few and (narrow or num_tokens <= 2):
        return LinearConfig(False, rows=4, tile=1024, num_warps=4, unroll=min(num_tokens, 2), ahead=8)
    if few:
        return LinearConfig(False, rows=2, tile=512, num_warps=2, unroll=4, ahead=8)
    if dtype is torch.float32 or not card_of(device).has_tensor_cores:
        stages = 3 if card_of(device).has_tensor_cores else 1
        return LinearConfig(True, rows=32, tile=32, num_warps=4, num_stages=stages)
    split, ahead = (2, 8) if narrow else (1, 0)
    config = LinearConfig(True, rows=64, tile=256, num_warps=4, num_stages=3, split=split, ahead=ahead)
    column = (
        config.num_stages * (config.rows + padded_tokens(num_tokens)) * dtype.itemsize
    )  # bytes, of both tiles
    return first_that_fits([(config._replace(tile=tile), tile * column) for tile in (256, 128, 64)], device)


@cache
def _tickets(device: torch.device, room: int) -> torch.Tensor:
    """Zeros, which every call leaves as zeros."""
    return torch.zeros(room, dtype=torch.int32, device=device)


def skinny_linear(x: torch.Tensor, weight: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """x times a matrix, transposed, for few tokens.

    Sums run in float32. A token's result is the same, bit for bit, whatever the other tokens are, as long as
    the number of tokens is; nothing is read on the host, so a CUDA graph can hold the call. Not for two streams
    at a time; the first call of a shape must come before a graph is captured.

    Args:
        x: [num_tokens, in_features], at most 64 tokens; float16, bfloat16 or float32.
        weight: [out_features, in_features], like x. Fast where rows lie at multiples of 16 bytes.
        out: [num_tokens, out_features], like x; None: made here.

    Returns:
        out.

    Raises:
        ValueError: an argument's shape, dtype, device or stride is not as above.
        RuntimeError: there is no GPU and TRITON_INTERPRET=1 is not set.
    """
    check_machine()
    check_tensor("x", x, ["num_tokens", "in_features"], FLOATS, x.device)
    num_tokens, width = x.shape
    if num_tokens > MAX_TOKENS:
        raise ValueError(
            f"x has {num_tokens} tokens, expected at most {MAX_TOKENS}: use torch's linear for more"
        )
    check_tensor("weight", weight, ["out_features", width], [x.dtype], x.device)
    num_rows = weight.shape[0]
    if out is None:
        out = x.new_empty(num_tokens, num_rows)
    check_tensor("out", out, [num_tokens, num_rows], [x.dtype], x.device)
    if out.numel() == 0:
        return out
    config = linear_config(num_tokens, num_rows, width, x.dtype, x.device)
    blocks = triton.cdiv(num_rows, config.rows)
    tokens = triton.next_power_of_2(num_tokens)
    sizes = (num_tokens, num_rows, width, out.stride(0), x.stride(0), weight.stride(0))
    options = {"ROWS": config.rows, "TILE": config.tile, "AHEAD": config.ahead, "num_warps": config.num_warps}
    options |= overlapping(x.device)
    if not config.tensor_cores:
        _few_tokens_kernel[(blocks,)](out, x, weight, *sizes, TOKENS=tokens, UNROLL=config.unroll, **options)
        return out
    tokens = padded_tokens(num_tokens)
    partials = x.new_empty(config.split * blocks * config.rows * tokens, dtype=torch.float32)
    _more_tokens_kernel[(blocks, config.split)](
        out, x, weight, partials, _tickets(x.device, triton.next_power_of_2(blocks)), *sizes, TOKENS=tokens,
        SPLIT=config.split, UPCAST=upcast(x), num_stages=config.num_stages,
        **options,
    )  # fmt: skip
    return out
