"""Paged attention in Triton: one body, a decode kernel, a prefill kernel and a small combine.

*Decode* reads every cached key and value once for one query token, so memory bandwidth is its limit. The
query heads that share a K/V head become the rows of one tile: K/V is read once a group, not once a head. All
K/V tiles of the batch, over sequences and heads, form one line, and each program takes an even share of it,
for any lengths (the idea of Stream-K, Osama et al. 2023, and LeanAttention, Sanovar et al. 2024). A row
cut by a border leaves partial results in a workspace, and ``_combine_kernel`` merges them (Flash-Decoding,
Dao et al. 2023). The shares are computed on the device, so nothing reads a length on the host and the grid
depends on the GPU alone: a CUDA graph serves every length.

*Prefill* takes tiles of (query token, head in the group) rows, as many as the tensor cores want. Only the tiles
of keys on the diagonal need a causal mask, and they come first; those that all rows see follow without one
(the two kinds of tile are FlashAttention-2's, Dao 2023).

Both call ``_attend_tile``: online softmax (Milakov and Gimelshein 2018) over one tile of keys and values that
is fetched through the block table (PagedAttention, Kwon et al. 2023). Scores are scaled by log2(e) as well,
since the hardware has exp2 and no exp.
"""

import math
import os
from functools import cache, partial
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.cards import card_of, first_that_fits
from kernels.launch import overlapping, wait_for_kernel_ahead
from kernels.validate import (
    check_attention,
    check_attention_contents,
    check_machine,
    check_tensor,
    upcast,
)

LOG2_E = math.log2(math.e)
EARLY_DECODES = 32  # sequences up to which the decode kernel starts before the kernel ahead of it has ended
LANES = 256  # sequences that a decode program looks at together when it finds its share


@triton.jit
def _block_ids(blocks, tile, length, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr, MASKED: tl.constexpr):
    """The block id of each token of a tile, int32 [TILE]; where MASKED, 0 for tokens beyond the end.

    blocks: the sequence's line of the block table.
    """
    lanes = tl.arange(0, TILE)
    at = blocks + tile * TILE // BLOCK_SIZE + lanes // BLOCK_SIZE
    if MASKED:
        return tl.load(at, mask=tile * TILE + lanes < length, other=0)
    return tl.load(at)


@triton.jit
def _attend_tile(
    query, best, total, acc, keys, values, ids, tile, last_visible, length, scale, block_stride, token_stride,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
    MASKED: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Fold one tile of keys and values into the running maximum, sum and weighted values of each row.

    query [ROWS, PADDED_DIM]; best, total and last_visible [ROWS]; acc [ROWS, PADDED_DIM] in float32; keys and
    values point at one K/V head; ids [TILE] are the tile's blocks.
    """
    tokens = tile * TILE + tl.arange(0, TILE)
    dims = tl.arange(0, PADDED_DIM)
    # 64-bit before the stride: block id times block stride passes 2^31 in a large cache.
    at = (ids.to(tl.int64) * block_stride)[:, None]
    offset = ((tokens & (BLOCK_SIZE - 1)) * token_stride)[:, None] + dims[None, :]
    # A weight of zero does not silence a NaN beyond the end, so V is masked like K.
    mask = (dims < HEAD_DIM)[None, :]
    if MASKED:
        mask = mask & (tokens < length)[:, None]
    k = tl.load(keys + offset + at, mask=mask, other=0.0)
    v = tl.load(values + offset + at, mask=mask, other=0.0)
    if UPCAST:
        k = k.to(tl.float32)
        v = v.to(tl.float32)

    scores = tl.dot(query, k.T, input_precision="ieee")
    if MASKED:
        scores = tl.where(tokens[None, :] <= last_visible[:, None], scores, float("-inf"))
    new_best = tl.maximum(best, tl.max(scores, 1) * scale)
    anchor = new_best
    if MASKED:
        # A row that has seen no key yet: -inf minus -inf would be NaN.
        anchor = tl.where(new_best == float("-inf"), 0.0, new_best)
    weights = tl.exp2(scores * scale - anchor[:, None])
    correction = tl.exp2(best - anchor)
    total = total * correction + tl.sum(weights, 1)
    acc = tl.dot(weights.to(v.dtype), v, acc * correction[:, None], input_precision="ieee")
    return new_best, total, acc


@triton.jit
def _plan(seq_lens, num_seqs, num_kv_heads, program, programs, TILE: tl.constexpr, LANES: tl.constexpr):
    """The tiles [first, last) of one program, so that all programs have equally many, or one more.

    Tiles are numbered by sequence, then K/V head, then position. Sequences of 2, 4 and 1 tiles, two K/V heads and
    four programs:

        sequence |     0     |           1           |  2  |
        K/V head |  0  |  1  |     0     |     1     |0 |1 |
        tile     | 0  1| 2  3| 4  5  6  7| 8  9 10 11|12|13|
        program  | 0  0  0  0| 1  1  1  1| 2  2  2| 3  3  3|

    A row is one K/V head of one sequence. Where all sequences are equally long and their rows nearly fill the
    programs, each program takes whole rows instead.

    seq_lens: int32 [num_seqs]. LANES: sequences that are looked at together. Returns int32 scalars: first; last;
    share and longer, where the first ``longer`` programs have share + 1 tiles and the others share; seq, the sequence
    of tile ``first``; before, the tiles of one K/V head in the sequences ahead of seq.
    """
    lanes = tl.arange(0, LANES)
    tiles = tl.cdiv(tl.load(seq_lens + lanes, mask=lanes < num_seqs, other=0), TILE)
    per_head = tl.sum(tiles)
    longest = tl.max(tiles)
    for start in range(LANES, num_seqs, LANES):
        more = tl.load(seq_lens + start + lanes, mask=start + lanes < num_seqs, other=0)
        per_head += tl.sum(tl.cdiv(more, TILE))
        longest = tl.maximum(longest, tl.max(tl.cdiv(more, TILE)))
    total_tiles = per_head * num_kv_heads
    # Programs with tiles come first, without a gap: the combine kernel relies on it.
    busy = tl.maximum(tl.minimum(total_tiles, programs), 1)
    # Cutting a row costs more than leaving up to a sixteenth of the programs idle.
    rows = num_seqs * num_kv_heads
    each = tl.cdiv(rows, programs)
    whole = (longest * num_seqs == per_head) & (rows * 16 >= each * programs * 15)
    share = tl.where(whole, each * longest, total_tiles // busy)
    longer = tl.where(whole, 0, total_tiles % busy)
    first = tl.minimum(program * share + tl.minimum(program, longer), total_tiles)
    last = tl.minimum(first + share + (program < longer).to(tl.int32), total_tiles)

    target = first // num_kv_heads
    ends = tl.cumsum(tiles)
    seq = tl.sum((ends <= target).to(tl.int32))
    before = tl.max(tl.where(ends <= target, ends, 0))
    counted = tl.sum(tiles)
    for start in range(LANES, num_seqs, LANES):
        more = tl.load(seq_lens + start + lanes, mask=start + lanes < num_seqs, other=0)
        ends = counted + tl.cumsum(tl.cdiv(more, TILE))
        seq += tl.sum((ends <= target).to(tl.int32))
        before = tl.maximum(before, tl.max(tl.where(ends <= target, ends, 0)))
        counted = tl.max(ends)
    return first, last, share, longer, seq, before


@triton.jit
def _owner(tile, share, longer):
    """The program whose share holds this tile: the first ``longer`` shares have one tile more."""
    border = longer * (share + 1)
    return tl.where(tile < border, tile // (share + 1), longer + (tile - border) // tl.maximum(share, 1))


@triton.jit(do_not_specialize=["num_seqs", "table_stride"])
def _decode_kernel(
    out, query, key_cache, value_cache, block_table, seq_lens, partials, stats, openers, scale, num_seqs,
    num_kv_heads, table_stride, out_token_stride, out_head_stride, q_token_stride, q_head_stride,
    kv_block_stride, kv_token_stride, kv_head_stride, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
    LANES: tl.constexpr, UPCAST: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program's share of a decode batch: for each of its rows, attention of GROUP query heads to some K/V tiles.

    A row (one K/V head of one sequence) that lies in the share as a whole goes to ``out``. A row that was cut leaves
    a piece: its values, not yet divided by their weights' total, and its maximum and total. Program p with the end of
    row A, the whole of B and the beginning of C:

        rows     ....A A A|B B B B B|C C C C C C....
        share        |<----- program p ----->|
        result   piece 2p |   out   |piece 2p + 1; openers[p] = C and the program that holds C's last tile

    out, query: [num_seqs, num_heads, HEAD_DIM], GROUP query heads to a K/V head. key_cache, value_cache:
    [num_blocks, BLOCK_SIZE, num_kv_heads, HEAD_DIM]. block_table: int32 [num_seqs, max_blocks]. seq_lens: int32
    [num_seqs]. partials: float32 [2 * programs, GROUP, PADDED_DIM]. stats: float32 [2 * programs, GROUP, 2], maximum
    and total. openers: int32 [programs, 2], a row and a program, -1 where nothing was left open. scale: of the scores,
    times log2(e). ROWS is GROUP padded to a power of two, at least 16.
    """
    wait_for_kernel_ahead(OVERLAP)
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    first, last, share, longer, seq, before = _plan(
        seq_lens, num_seqs, num_kv_heads, program, programs, TILE, LANES
    )
    rows = tl.arange(0, ROWS)
    dims = tl.arange(0, PADDED_DIM)
    kept = (rows < GROUP)[:, None] & (dims < HEAD_DIM)[None, :]

    opened = -1
    opened_until = -1
    flat = first
    while flat < last:
        length = tl.load(seq_lens + seq)
        tiles = tl.cdiv(length, TILE)
        local = flat - before * num_kv_heads
        head = local // tl.maximum(tiles, 1)
        begin = local - head * tiles
        end = tl.minimum(tiles, begin + last - flat)

        heads = (head * GROUP + rows).to(tl.int64)
        q_at = query + seq.to(tl.int64) * q_token_stride + heads[:, None] * q_head_stride + dims[None, :]
        q = tl.load(q_at, mask=kept, other=0.0)
        if UPCAST:
            q = q.to(tl.float32)
        best = tl.full([ROWS], float("-inf"), tl.float32)
        total = tl.zeros([ROWS], tl.float32)
        acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
        last_visible = tl.zeros([ROWS], tl.int32) + length - 1
        keys = key_cache + head.to(tl.int64) * kv_head_stride
        values = value_cache + head.to(tl.int64) * kv_head_stride
        blocks = block_table + seq.to(tl.int64) * table_stride
        # Ids one tile ahead: a load that waits for a load would hold up the pipeline.
        ids = _block_ids(blocks, begin, length, BLOCK_SIZE, TILE, True)
        for tile in range(begin, end):
            next_ids = _block_ids(blocks, tile + 1, length, BLOCK_SIZE, TILE, True)
            best, total, acc = _attend_tile(
                q, best, total, acc, keys, values, ids, tile, last_visible, length, scale, kv_block_stride,
                kv_token_stride, HEAD_DIM, PADDED_DIM, BLOCK_SIZE, TILE, True, UPCAST,
            )  # fmt: skip
            ids = next_ids

        if end - begin == tiles:
            o_at = out + seq.to(tl.int64) * out_token_stride + heads[:, None] * out_head_stride
            result = acc / tl.where(total == 0.0, 1.0, total)[:, None]
            tl.store(o_at + dims[None, :], result.to(out.dtype.element_ty), mask=kept)
        else:
            # At most two cut rows a program: its first one, begun by another program, and its last one.
            piece = program.to(tl.int64) * 2
            if begin == 0:
                piece += 1
                opened = seq * num_kv_heads + head
                opened_until = _owner(flat + tiles - 1, share, longer)
            p_at = partials + (piece * GROUP + rows)[:, None] * PADDED_DIM + dims[None, :]
            tl.store(p_at, acc, mask=(rows < GROUP)[:, None])
            tl.store(stats + (piece * GROUP + rows) * 2, best, mask=rows < GROUP)
            tl.store(stats + (piece * GROUP + rows) * 2 + 1, total, mask=rows < GROUP)
        flat += end - begin
        if head * tiles + end == num_kv_heads * tiles:
            seq += 1
            before += tiles
    tl.store(openers + 2 * program, opened)
    tl.store(openers + 2 * program + 1, opened_until)

    # An empty sequence has no tiles, so its zeros are shared out by themselves.
    for empty in range(program.to(tl.int64), num_seqs, programs):
        if tl.load(seq_lens + empty) <= 0:
            for head in range(num_kv_heads):
                heads = (head * GROUP + rows).to(tl.int64)
                at = out + empty * out_token_stride + heads[:, None] * out_head_stride
                tl.store(at + dims[None, :], tl.zeros([ROWS, PADDED_DIM], out.dtype.element_ty), mask=kept)


@triton.jit
def _combine_kernel(
    out, partials, stats, openers, num_kv_heads, out_token_stride, out_head_stride, GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, PIECES: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """Merge the pieces of the row that decode program ``program`` left open, for one query head of its group.

    Grid [programs, GROUP]; arguments as in ``_decode_kernel``. PIECES: how many are loaded together. One warp: each
    lane keeps its dimensions of all pieces, so that only the stats are exchanged.
    """
    program = tl.program_id(0)
    member = tl.program_id(1)
    wait_for_kernel_ahead(OVERLAP)
    row = tl.load(openers + 2 * program)
    until = tl.load(openers + 2 * program + 1)
    if row >= 0:
        dims = tl.arange(0, PADDED_DIM)
        best = tl.full([], float("-inf"), tl.float32)
        total = tl.zeros([], tl.float32)
        acc = tl.zeros([PADDED_DIM], tl.float32)
        for start in range(program, until + 1, PIECES):
            pieces = start + tl.arange(0, PIECES)
            held = pieces <= until
            # This program's piece is its second one, the other programs' their first.
            slots = (2 * pieces + (pieces == program).to(tl.int32)) * GROUP + member
            bests = tl.load(stats + slots * 2, mask=held, other=float("-inf"))
            totals = tl.load(stats + slots * 2 + 1, mask=held, other=0.0)
            p_at = partials + slots[:, None] * PADDED_DIM + dims[None, :]
            accs = tl.load(p_at, mask=held[:, None], other=0.0)
            new_best = tl.maximum(best, tl.max(bests))
            weights = tl.exp2(bests - new_best)
            correction = tl.exp2(best - new_best)
            total = total * correction + tl.sum(totals * weights)
            acc = acc * correction + tl.sum(accs * weights[:, None], 0)
            best = new_best
        seq = (row // num_kv_heads).to(tl.int64)
        head = row % num_kv_heads * GROUP + member
        o_at = out + seq * out_token_stride + head * out_head_stride + dims
        tl.store(o_at, (acc / total).to(out.dtype.element_ty), mask=dims < HEAD_DIM)


@triton.jit(do_not_specialize=["num_seqs", "num_tokens", "first_seq", "table_stride"])
def _prefill_kernel(
    out, query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, num_seqs, num_tokens,
    first_seq, table_stride, out_token_stride, out_head_stride, q_token_stride, q_head_stride,
    kv_block_stride: tl.constexpr, kv_token_stride: tl.constexpr, kv_head_stride: tl.constexpr,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    ROWS: tl.constexpr, TILE: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """A block of QUERIES tokens of one prompt and the GROUP query heads of one K/V head, over all keys they see.

    With QUERIES as large as TILE, a prompt of five tiles of which the last three are computed in this call:

        tile of keys       0   1   2   3   4
        query block 0      .   .   x              .  every row sees all of it: no mask
        query block 1      .   .   .   x          x  on the diagonal: masked
        query block 2      .   .   .   .   x         not loaded

    Grid [num_kv_heads, blocks]. out, query: [num_tokens, num_heads, HEAD_DIM]; row r of a tile is token r // GROUP of
    the block and head r % GROUP of the group. Caches, block_table, seq_lens and scale: as in ``_decode_kernel``.
    query_start_loc: int32 [num_seqs + 1]. first_seq: sequences that are decodes, one token each, and not taken here.
    Rows of no sequence, at the end, get zeros.
    """
    QUERIES: tl.constexpr = ROWS // GROUP
    head = tl.program_id(0).to(tl.int64)
    # Late blocks see the most keys: they start first, so that the short ones fill the gaps at the end.
    block = tl.num_programs(1) - 1 - tl.program_id(1)

    # Sequence s owns the query blocks from first_block(s); a search needs no table made on the host.
    # Rows after the last sequence are padding: taken as a sequence of length 0.
    low = first_seq
    high = num_seqs
    while low < high:
        middle = (low + high + 1) // 2
        first_block = (tl.load(query_start_loc + middle) - first_seq) // QUERIES + middle - first_seq
        if first_block <= block:
            low = middle
        else:
            high = middle - 1
    seq = low
    query_start = tl.load(query_start_loc + seq)
    query_end = tl.load(query_start_loc + seq + 1, mask=seq < num_seqs, other=num_tokens)
    length = tl.load(seq_lens + seq, mask=seq < num_seqs, other=0)
    query_len = query_end - query_start
    offset = (block - (query_start - first_seq) // QUERIES - seq + first_seq) * QUERIES
    if offset >= query_len:
        return

    rows = tl.arange(0, ROWS)
    dims = tl.arange(0, PADDED_DIM)
    tokens = offset + rows // GROUP
    heads = head * GROUP + rows % GROUP
    kept = ((rows < QUERIES * GROUP) & (tokens < query_len))[:, None] & (dims < HEAD_DIM)[None, :]
    at = (query_start + tokens).to(tl.int64)
    q_at = query + (at * q_token_stride + heads * q_head_stride)[:, None] + dims[None, :]
    q = tl.load(q_at, mask=kept, other=0.0)
    if UPCAST:
        q = q.to(tl.float32)

    computed = length - query_len
    last_visible = computed + tokens
    seen_by_all = tl.maximum(computed + offset + 1, 0) // TILE
    seen_by_any = tl.cdiv(tl.maximum(computed + tl.minimum(offset + QUERIES, query_len), 0), TILE)
    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    keys = key_cache + head * kv_head_stride
    values = value_cache + head * kv_head_stride
    blocks = block_table + seq.to(tl.int64) * table_stride
    # The diagonal first: what only its mask needs is out of the registers before the long loop.
    for tile in range(seen_by_all, seen_by_any):
        ids = _block_ids(blocks, tile, length, BLOCK_SIZE, TILE, True)
        best, total, acc = _attend_tile(
            q, best, total, acc, keys, values, ids, tile, last_visible, length, scale, kv_block_stride,
            kv_token_stride, HEAD_DIM, PADDED_DIM, BLOCK_SIZE, TILE, True, UPCAST,
        )  # fmt: skip
    for tile in range(seen_by_all):
        ids = _block_ids(blocks, tile, length, BLOCK_SIZE, TILE, False)
        best, total, acc = _attend_tile(
            q, best, total, acc, keys, values, ids, tile, last_visible, length, scale, kv_block_stride,
            kv_token_stride, HEAD_DIM, PADDED_DIM, BLOCK_SIZE, TILE, False, UPCAST,
        )  # fmt: skip
    o_at = out + (at * out_token_stride + heads * out_head_stride)[:, None] + dims[None, :]
    result = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    tl.store(o_at, result.to(out.dtype.element_ty), mask=kept)


class DecodeConfig(NamedTuple):
    """How the decode kernel is cut and compiled; the grid is ``programs`` for every batch."""

    tile: int
    programs: int
    num_warps: int
    num_stages: int
    max_registers: int | None = None


class PrefillConfig(NamedTuple):
    """How the prefill kernel is cut and compiled; a program takes ``rows`` (query token, head) pairs."""

    rows: int
    tile: int
    num_warps: int
    num_stages: int
    max_registers: int | None = None

    def shared_bytes(self, padded_dim: int, itemsize: int) -> int:
        """An upper bound: the queries, and K and V of each stage."""
        return (self.rows + 2 * self.num_stages * self.tile) * padded_dim * itemsize


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


# The settings below were measured on an H200 (benchmarks/tune_attention.py) for 16-bit types.
# More programs a processor hide each other's waits; registers are capped so that they fit.


def decode_config(head_dim: int, dtype: torch.dtype, device: torch.device) -> DecodeConfig:
    """Tile of keys, number of programs, warps and pipeline stages of the decode kernel."""
    if device.type == "cpu":
        return DecodeConfig(tile=16, programs=5, num_warps=4, num_stages=1)
    card = card_of(device)
    programs = 4 * card.processors
    if dtype is torch.float32 or not card.has_tensor_cores:
        return DecodeConfig(32 if head_dim <= 128 else 16, programs // 2, 4, num_stages=card.pipeline_stages)
    if head_dim == 64:
        return DecodeConfig(64, programs, num_warps=4, num_stages=3)
    if head_dim == 256:
        return DecodeConfig(32, programs, num_warps=4, num_stages=2, max_registers=128)
    return DecodeConfig(64, programs, num_warps=4, num_stages=2, max_registers=128)


def prefill_config(head_dim: int, dtype: torch.dtype, device: torch.device) -> PrefillConfig:
    """Rows, tile of keys, warps and pipeline stages of the prefill kernel."""
    if device.type == "cpu":
        return PrefillConfig(rows=16, tile=16, num_warps=4, num_stages=1)
    if dtype is torch.float32 or not card_of(device).has_tensor_cores:
        tile, stages = 32 if head_dim <= 128 else 16, card_of(device).pipeline_stages
        choices = [PrefillConfig(rows, tile, num_warps=4, num_stages=stages) for rows in (32, 16)]
    elif head_dim == 64:
        choices = [PrefillConfig(128, 64, num_warps=8, num_stages=3, max_registers=128)]
    elif head_dim == 256:
        choices = [PrefillConfig(*size, 8, num_stages=2) for size in ((128, 64), (64, 64), (64, 32))]
    else:
        choices = [PrefillConfig(128, 64, num_warps=8, num_stages=2, max_registers=128)]
    padded = triton.next_power_of_2(head_dim)
    return first_that_fits([(each, each.shared_bytes(padded, dtype.itemsize)) for each in choices], device)


def make_workspace(
    num_heads: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device | str
) -> torch.Tensor:
    """Room for the decode split's partial results, for ``paged_attention(workspace=...)``.

    Returns:
        A float32 tensor whose size depends on the heads and the GPU, not on the batch: one serves every batch
        and every CUDA graph, as long as no two calls that use it run at the same time. Its contents do not
        matter before a call.
    """
    device = torch.device(device)
    group = num_heads // num_kv_heads
    pieces = 2 * decode_config(head_dim, dtype, device).programs
    floats = pieces * (group * (triton.next_power_of_2(head_dim) + 2) + 1)
    return torch.empty(floats, dtype=torch.float32, device=device)


def paged_attention(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    *,
    scale: float,
    num_decodes: int | None = None,
    max_query_len: int | None = None,
    max_seq_len: int | None = None,
    workspace: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Causal attention of each query token over its sequence's paged keys and values.

    Any mix of decodes, whole prompts and prompt chunks goes into one call. Nothing is read on the host, so a
    CUDA graph can hold the call and be replayed after lengths, block table and caches have changed.

    Args:
        query: [num_tokens, num_heads, head_dim], float16, bfloat16 or float32; head_dim 64, 80, 96, 128, 256.
        key_cache: [num_blocks, block_size, num_kv_heads, head_dim], like query; block_size 16, 32, 64, 128
            or 256. num_heads is a multiple of num_kv_heads (equal: MHA; one: MQA; between: GQA).
        value_cache: like key_cache, with its strides.
        block_table: int32 [num_seqs, max_blocks]; entries beyond a sequence's length are never read.
        seq_lens: int32 [num_seqs], each context's length including this call's tokens. A sequence of
            length 0 gives zeros, and so do query rows that no sequence owns.
        query_start_loc: int32 [num_seqs + 1], where each sequence's query rows begin, never decreasing.
        scale: factor of the scores, positive; usually head_dim ** -0.5.
        num_decodes: the first so many sequences have one query token each and go through the decode kernel.
            None: nothing is known of the order and the prefill kernel takes everything.
        max_query_len: an upper bound; 1 with as many tokens as sequences says that all are decodes.
        max_seq_len: an upper bound, checked against the block table.
        workspace: from make_workspace, so that a CUDA graph can own it. None: made here.
        out: like query; None: made here.

    Returns:
        out, [num_tokens, num_heads, head_dim].

    Raises:
        ValueError: an argument's shape, dtype, device or stride is not as above. With KERNELS_DEBUG=1 in the
            environment lengths, starts and block ids are read and checked as well.
        RuntimeError: there is no GPU and TRITON_INTERPRET=1 is not set.
    """
    check_machine()
    check_attention(
        query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, num_decodes, max_seq_len
    )
    out = torch.empty_like(query) if out is None else out
    check_tensor("out", out, list(query.shape), [query.dtype], query.device)
    if num_decodes is None:
        num_decodes = len(seq_lens) if max_query_len == 1 and len(query) == len(seq_lens) else 0
    if os.environ.get("KERNELS_DEBUG") == "1":
        check_attention_contents(key_cache, block_table, seq_lens, query_start_loc, len(query), num_decodes)
    caches = (query, key_cache, value_cache, block_table, seq_lens)
    decode = partial(_decode, out, *caches, scale, num_decodes, workspace)
    prefill = partial(_prefill, out, *caches, query_start_loc, scale, num_decodes)
    _attend(decode if num_decodes else None, prefill if num_decodes < len(out) else None, out.device)
    return out


def _attend(decode, prefill, device):
    """Both in a mixed call; on a GPU on two streams, joined before it returns."""
    if decode and prefill and device.type == "cuda":
        # One waits for memory, the other for the tensor cores: side by side they take less than in turn.
        main, side = torch.cuda.current_stream(device), _side_stream(device)
        side.wait_stream(main)
        with torch.cuda.stream(side):
            prefill()
        decode()
        main.wait_stream(side)
        return
    for part in filter(None, (prefill, decode)):
        part()


def _decode(out, query, key_cache, value_cache, block_table, seq_lens, scale, num_decodes, workspace):
    num_heads, head_dim = query.shape[1:]
    block_size, num_kv_heads = key_cache.shape[1:3]
    group = num_heads // num_kv_heads
    padded_dim = triton.next_power_of_2(head_dim)
    config = decode_config(head_dim, query.dtype, query.device)
    if workspace is None:
        workspace = make_workspace(num_heads, num_kv_heads, head_dim, query.dtype, query.device)
    pieces = 2 * config.programs
    sizes = [pieces * group * padded_dim, pieces * group * 2, pieces]
    check_tensor("workspace", workspace, ["floats"], [torch.float32], query.device)
    if workspace.numel() < sum(sizes):
        raise ValueError(f"workspace holds {workspace.numel()} floats, expected at least {sum(sizes)}")
    partials, stats, openers = workspace[: sum(sizes)].split(sizes)
    openers = openers.view(torch.int32)
    overlap = overlapping(query.device)
    # Programs that fill the GPU would keep the kernel that they wait for from running.
    early = overlap if num_decodes <= EARLY_DECODES else {"OVERLAP": overlap["OVERLAP"]}
    _decode_kernel[(config.programs,)](
        out, query, key_cache, value_cache, block_table, seq_lens, partials, stats, openers, scale * LOG2_E,
        num_decodes, num_kv_heads, block_table.stride(0), *out.stride()[:2], *query.stride()[:2],
        *key_cache.stride()[:3], GROUP=group, HEAD_DIM=head_dim, PADDED_DIM=padded_dim,
        BLOCK_SIZE=block_size, ROWS=max(16, triton.next_power_of_2(group)), TILE=config.tile, LANES=LANES,
        UPCAST=upcast(query), num_warps=config.num_warps, num_stages=config.num_stages,
        maxnreg=config.max_registers, **early,
    )  # fmt: skip
    _combine_kernel[(config.programs, group)](
        out, partials, stats, openers, num_kv_heads, *out.stride()[:2], GROUP=group, HEAD_DIM=head_dim,
        PADDED_DIM=padded_dim, PIECES=4096 // padded_dim, num_warps=1, **overlap,
    )  # fmt: skip


def _prefill(out, query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, num_decodes):
    num_tokens, num_heads, head_dim = query.shape
    block_size, num_kv_heads = key_cache.shape[1:3]
    num_seqs = seq_lens.shape[0]
    group = num_heads // num_kv_heads
    config = prefill_config(head_dim, query.dtype, query.device)
    rows = max(config.rows, triton.next_power_of_2(group))
    blocks = (num_tokens - num_decodes) // (rows // group) + num_seqs - num_decodes + 1
    _prefill_kernel[(num_kv_heads, blocks)](
        out, query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale * LOG2_E,
        num_seqs, num_tokens, num_decodes, block_table.stride(0), *out.stride()[:2], *query.stride()[:2],
        *key_cache.stride()[:3], GROUP=group, HEAD_DIM=head_dim,
        PADDED_DIM=triton.next_power_of_2(head_dim), BLOCK_SIZE=block_size, ROWS=rows, TILE=config.tile,
        UPCAST=upcast(query), num_warps=config.num_warps, num_stages=config.num_stages,
        maxnreg=config.max_registers,
    )  # fmt: skip
