"""Variants of the prefill kernel for benchmarks/tune_prefill.py (an experiment, not part of the course)."""

import torch
import triton
import triton.language as tl

from kernels.attention import LOG2_E
from kernels.validate import upcast


@triton.jit
def _find(query_start_loc, seq_lens, num_seqs, num_tokens, first_seq, block, QUERIES: tl.constexpr):
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
    offset = (block - (query_start - first_seq) // QUERIES - seq + first_seq) * QUERIES
    return seq, query_start, query_end - query_start, length, offset


@triton.jit
def _ids(blocks, tile, length, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr):
    lanes = tl.arange(0, TILE)
    if BLOCK_SIZE <= TILE:
        at = blocks + lanes // BLOCK_SIZE
        return tl.load(at + tile * (TILE // BLOCK_SIZE), mask=lanes < length - tile * TILE, other=0)
    else:
        at = blocks + tile * TILE // BLOCK_SIZE + lanes * 0
        return tl.load(at, mask=lanes < length - tile * TILE, other=0)


@triton.jit
def _fetch(lane, ids, tile, length, BLOCK_STRIDE: tl.constexpr, TOKEN_STRIDE: tl.constexpr, HEAD_DIM: tl.constexpr,
           PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr, MASK: tl.constexpr):
    """lane: pointers [1, PADDED_DIM] (cache + head + dims)"""
    lanes = tl.arange(0, TILE)
    dims = tl.arange(0, PADDED_DIM)
    if BLOCK_SIZE <= TILE:
        base = lane + (lanes % BLOCK_SIZE * TOKEN_STRIDE)[:, None]
    else:
        base = lane + (tile * TILE % BLOCK_SIZE * TOKEN_STRIDE + lanes * TOKEN_STRIDE)[:, None]
    at = base + (ids.to(tl.int64) * BLOCK_STRIDE)[:, None]
    if MASK:
        mask = (lanes < length - tile * TILE)[:, None]
        if HEAD_DIM != PADDED_DIM:
            mask = mask & (dims < HEAD_DIM)[None, :]
        return tl.load(at, mask=mask, other=0.0)
    elif HEAD_DIM != PADDED_DIM:
        return tl.load(at, mask=(dims < HEAD_DIM)[None, :], other=0.0)
    else:
        return tl.load(at)


@triton.jit(do_not_specialize=["num_seqs", "num_tokens", "first_seq", "table_stride"])
def prefill(
    out, query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, num_seqs, num_tokens,
    first_seq, table_stride, out_token_stride, out_head_stride, q_token_stride, q_head_stride,
    BLOCK_STRIDE: tl.constexpr, TOKEN_STRIDE: tl.constexpr, HEAD_STRIDE: tl.constexpr, GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, ROWS: tl.constexpr,
    TILE: tl.constexpr, UPCAST: tl.constexpr, AHEAD: tl.constexpr, QREG: tl.constexpr,
):  # fmt: skip
    QUERIES: tl.constexpr = ROWS // GROUP
    head = tl.program_id(0)
    block = tl.num_programs(1) - 1 - tl.program_id(1)
    seq, query_start, query_len, length, offset = _find(
        query_start_loc, seq_lens, num_seqs, num_tokens, first_seq, block, QUERIES)
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
    if QREG:
        q = tl.where(kept, q, 0.0)
    if UPCAST:
        q = q.to(tl.float32)
    computed = length - query_len
    seen_by_all = tl.maximum(computed + offset + 1, 0) // TILE
    seen_by_any = tl.cdiv(tl.maximum(computed + tl.minimum(offset + QUERIES, query_len), 0), TILE)
    keys = key_cache + head.to(tl.int64) * HEAD_STRIDE + dims[None, :]
    values = value_cache + head.to(tl.int64) * HEAD_STRIDE + dims[None, :]
    blocks = block_table + seq.to(tl.int64) * table_stride
    last_visible = computed + tokens
    lanes = tl.arange(0, TILE)
    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    ids = _ids(blocks, 0, length, BLOCK_SIZE, TILE)
    if not AHEAD:
        for tile in range(seen_by_any):
            next_ids = _ids(blocks, tile + 1, length, BLOCK_SIZE, TILE)
            k = _fetch(keys, ids, tile, length, BLOCK_STRIDE, TOKEN_STRIDE, HEAD_DIM, PADDED_DIM, BLOCK_SIZE, TILE, False)
            v = _fetch(values, ids, tile, length, BLOCK_STRIDE, TOKEN_STRIDE, HEAD_DIM, PADDED_DIM, BLOCK_SIZE, TILE, True)
            if UPCAST:
                k = k.to(tl.float32)
                v = v.to(tl.float32)
            scores = tl.dot(q, k.T, input_precision="ieee")
            if tile >= seen_by_all:
                scores = tl.where(lanes[None, :] <= (last_visible - tile * TILE)[:, None], scores, float("-inf"))
            new_best = tl.maximum(best, tl.max(scores, 1) * scale)
            anchor = tl.where(new_best == float("-inf"), 0.0, new_best)
            weights = tl.exp2(scores * scale - anchor[:, None])
            correction = tl.exp2(best - anchor)
            total = total * correction + tl.sum(weights, 1)
            acc = tl.dot(weights.to(v.dtype), v, acc * correction[:, None], input_precision="ieee")
            best = new_best
            ids = next_ids
    else:
        # The weights of a tile meet its values while the scores of the next tile become weights.
        final = tl.maximum(seen_by_any - 1, 0)
        last_ids = _ids(blocks, final, length, BLOCK_SIZE, TILE)
        v_last = _fetch(values, last_ids, final, length, BLOCK_STRIDE, TOKEN_STRIDE, HEAD_DIM, PADDED_DIM, BLOCK_SIZE, TILE, True)
        weights = tl.zeros([ROWS, TILE], tl.float32)
        correction = tl.full([ROWS], 1.0, tl.float32)
        old_ids = tl.zeros_like(ids)
        for tile in range(seen_by_any):
            next_ids = _ids(blocks, tile + 1, length, BLOCK_SIZE, TILE)
            next_old = ids * BLOCK_SIZE
            k = _fetch(keys, ids, tile, length, BLOCK_STRIDE, TOKEN_STRIDE, HEAD_DIM, PADDED_DIM, BLOCK_SIZE, TILE, False)
            # Nothing is fetched for the first tile, which has no tile before it.
            v = _fetch(values, old_ids, tile - 1, tl.where(tile > 0, tile, -1) * TILE, BLOCK_STRIDE // BLOCK_SIZE, TOKEN_STRIDE, HEAD_DIM, PADDED_DIM, BLOCK_SIZE, TILE, True)
            if UPCAST:
                k = k.to(tl.float32)
                v = v.to(tl.float32)
            scores = tl.dot(q, k.T, input_precision="ieee")
            if tile >= seen_by_all:
                scores = tl.where(lanes[None, :] <= (last_visible - tile * TILE)[:, None], scores, float("-inf"))
            acc = tl.dot(weights.to(v.dtype), v, acc * correction[:, None], input_precision="ieee")
            new_best = tl.maximum(best, tl.max(scores, 1) * scale)
            anchor = tl.where(new_best == float("-inf"), 0.0, new_best)
            weights = tl.exp2(scores * scale - anchor[:, None])
            correction = tl.exp2(best - anchor)
            total = total * correction + tl.sum(weights, 1)
            best = new_best
            old_ids = next_old
            ids = next_ids
        if UPCAST:
            v_last = v_last.to(tl.float32)
        acc = tl.dot(weights.to(v_last.dtype), v_last, acc * correction[:, None], input_precision="ieee")
    o_at = out + (at * out_token_stride + heads * out_head_stride)[:, None] + dims[None, :]
    result = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    tl.store(o_at, result.to(out.dtype.element_ty), mask=kept)


def launch(out, query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale, num_decodes, config):
    ahead, qreg, rows, tile, num_warps, num_stages, maxnreg = config
    num_tokens, num_heads, head_dim = query.shape
    block_size, num_kv_heads = key_cache.shape[1:3]
    num_seqs = seq_lens.shape[0]
    group = num_heads // num_kv_heads
    rows = max(rows, triton.next_power_of_2(group))
    blocks = (num_tokens - num_decodes) // (rows // group) + num_seqs - num_decodes + 1
    block_stride, token_stride, head_stride = key_cache.stride()[:3]
    prefill[(num_kv_heads, blocks)](
        out, query, key_cache, value_cache, block_table, seq_lens, query_start_loc, scale * LOG2_E, num_seqs,
        num_tokens, num_decodes, block_table.stride(0), *out.stride()[:2], *query.stride()[:2],
        BLOCK_STRIDE=block_stride, TOKEN_STRIDE=token_stride, HEAD_STRIDE=head_stride, GROUP=group,
        HEAD_DIM=head_dim, PADDED_DIM=triton.next_power_of_2(head_dim), BLOCK_SIZE=block_size, ROWS=rows,
        TILE=tile, UPCAST=upcast(query), AHEAD=ahead, QREG=qreg, num_warps=num_warps, num_stages=num_stages,
        maxnreg=maxnreg,
    )
