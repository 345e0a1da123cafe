"""Adds the values up in float16.

property: sums have room for more than float16 holds
told: shift=200.0
"""

import triton
import triton.language as tl


@triton.jit
def _decode_kernel(
    out, query, key_cache, value_cache, block_table, seq_lens, scale, max_blocks, kv_heads,
    GROUP: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    seq = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    rows = tl.arange(0, ROWS)
    dims = tl.arange(0, DIM)
    length = tl.load(seq_lens + seq)
    blocks = block_table + seq * max_blocks

    heads = seq * kv_heads * GROUP + kv_head * GROUP + rows
    at = heads[:, None] * DIM + dims[None, :]
    own = (rows < GROUP)[:, None]
    q = tl.load(query + at, mask=own, other=0.0)

    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, DIM], tl.float16)
    for start in range(0, length, TILE):
        tokens = start + tl.arange(0, TILE)
        seen = tokens < length
        block = tl.load(blocks + tokens // BLOCK_SIZE, mask=seen, other=0).to(tl.int64)
        place = (block * BLOCK_SIZE + tokens % BLOCK_SIZE) * kv_heads + kv_head
        kv = place[:, None] * DIM + dims[None, :]
        k = tl.load(key_cache + kv, mask=seen[:, None], other=0.0)
        v = tl.load(value_cache + kv, mask=seen[:, None], other=0.0)

        scores = tl.where(seen[None, :], tl.dot(q, k.T) * scale, float("-inf"))
        new_best = tl.maximum(best, tl.max(scores, 1))
        weights = tl.exp2(scores - new_best[:, None])
        correction = tl.exp2(best - new_best)
        total = total * correction + tl.sum(weights, 1)
        acc = (tl.dot(weights.to(v.dtype), v) + acc * correction[:, None]).to(tl.float16)
        best = new_best
    result = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    tl.store(out + at, result.to(out.dtype.element_ty), mask=own)
