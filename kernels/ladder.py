"""The rungs below ``kernels.attention``: one idea each, from a loop over tokens to grouped query heads.

``loop`` → ``tiled`` → ``paged`` → ``ragged`` → ``grouped`` → ``attention.paged_attention`` with
``num_decodes`` (the split over K/V and its combine) → the same with prompts in the batch. Every rung gives
the same answer. Each adds one idea; where an idea does not pay (a split where every sequence is long enough),
the benchmark shows that too. For reading and measuring, not for an engine: nothing is checked.
"""

import torch
import triton
import triton.language as tl

from kernels.attention import LOG2_E, _attend_tile, _block_ids
from kernels.cards import card_of
from kernels.validate import INTERPRETED, check_machine, upcast


def tile_of(query: torch.Tensor) -> int:
    """Tokens of a tile, for all rungs: as many as every card has room for."""
    if INTERPRETED:
        return 16
    return 64 if query.itemsize == 2 and card_of(query.device).has_tensor_cores else 16


def loop(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, scale: float) -> torch.Tensor:
    """One token at a time: query [head_dim] over keys and values [length, head_dim].

    The running maximum keeps every exponent at or below zero; when it rises, what was summed so far shrinks.
    """
    best = torch.tensor(float("-inf"), device=query.device)
    total = torch.zeros((), device=query.device)
    acc = torch.zeros_like(query, dtype=torch.float32)
    for key, value in zip(keys.float(), values.float(), strict=True):
        score = torch.dot(query.float(), key) * scale
        new_best = torch.maximum(best, score)
        weight, correction = torch.exp(score - new_best), torch.exp(best - new_best)
        total = total * correction + weight
        acc = acc * correction + weight * value
        best = new_best
    return (acc / total).to(query.dtype)


@triton.jit
def _attend_row(query, best, total, acc, k, v, present, scale):
    """``loop``'s body for a tile of tokens at once: query [D], k and v [TILE, D], present [TILE]."""
    scores = tl.where(present, tl.sum(query[None, :] * k.to(tl.float32), 1) * scale, float("-inf"))
    new_best = tl.maximum(best, tl.max(scores))
    weights = tl.exp2(scores - new_best)
    correction = tl.exp2(best - new_best)
    total = total * correction + tl.sum(weights)
    acc = acc * correction + tl.sum(weights[:, None] * v.to(tl.float32), 0)
    return new_best, total, acc


@triton.jit
def _tiled_kernel(out, query, keys, values, length, scale, DIM: tl.constexpr, TILE: tl.constexpr):
    dims = tl.arange(0, DIM)
    q = tl.load(query + dims).to(tl.float32)
    best = tl.full([], float("-inf"), tl.float32)
    total = tl.zeros([], tl.float32)
    acc = tl.zeros([DIM], tl.float32)
    for start in range(0, length, TILE):
        tokens = start + tl.arange(0, TILE)
        present = tokens < length
        at = tokens[:, None] * DIM + dims[None, :]
        k = tl.load(keys + at, mask=present[:, None], other=0.0)
        v = tl.load(values + at, mask=present[:, None], other=0.0)
        best, total, acc = _attend_row(q, best, total, acc, k, v, present, scale)
    tl.store(out + dims, (acc / total).to(out.dtype.element_ty))


def tiled(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, scale: float) -> torch.Tensor:
    """One tile of tokens at a time, in one program: query [head_dim], keys and values [length, head_dim]."""
    check_machine()
    out = torch.empty_like(query)
    length, head_dim = keys.shape
    _tiled_kernel[(1,)](
        out,
        query,
        keys.contiguous(),
        values.contiguous(),
        length,
        scale * LOG2_E,
        DIM=head_dim,
        TILE=tile_of(query),
    )
    return out


@triton.jit
def _ragged_kernel(
    out, query, key_cache, value_cache, block_table, seq_lens, scale, table_stride, token_stride, head_stride,
    block_stride, kv_token_stride, kv_head_stride, GROUP: tl.constexpr, DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    seq = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    length = tl.load(seq_lens + seq)
    dims = tl.arange(0, DIM)
    row = seq * token_stride + head * head_stride + dims
    q = tl.load(query + row).to(tl.float32)
    best = tl.full([], float("-inf"), tl.float32)
    total = tl.zeros([], tl.float32)
    acc = tl.zeros([DIM], tl.float32)
    for tile in range(tl.cdiv(length, TILE)):
        # The only difference to _tiled_kernel: a token's address is looked up in the block table.
        tokens = tile * TILE + tl.arange(0, TILE)
        present = tokens < length
        ids = _block_ids(block_table + seq * table_stride, tile, length, BLOCK_SIZE, TILE, True)
        at = ids.to(tl.int64) * block_stride + tokens % BLOCK_SIZE * kv_token_stride
        at = at[:, None] + head // GROUP * kv_head_stride + dims[None, :]
        k = tl.load(key_cache + at, mask=present[:, None], other=0.0)
        v = tl.load(value_cache + at, mask=present[:, None], other=0.0)
        best, total, acc = _attend_row(q, best, total, acc, k, v, present, scale)
    tl.store(out + row, (acc / tl.where(total == 0.0, 1.0, total)).to(out.dtype.element_ty))


def ragged(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    *,
    scale: float,
) -> torch.Tensor:
    """Many sequences of any lengths, one program for each sequence and query head.

    query [num_seqs, num_heads, head_dim], one token a sequence, contiguous; head_dim a power of two; the rest
    as in ``attention.paged_attention``. The heads of a group read the same keys and values, each for itself.
    """
    check_machine()
    num_seqs, num_heads, head_dim = query.shape
    block_size, num_kv_heads = key_cache.shape[1:3]
    out = torch.empty_like(query)
    _ragged_kernel[(num_seqs, num_heads)](
        out, query, key_cache, value_cache, block_table, seq_lens, scale * LOG2_E, block_table.stride(0),
        *query.stride()[:2], *key_cache.stride()[:3], GROUP=num_heads // num_kv_heads, DIM=head_dim,
        BLOCK_SIZE=block_size, TILE=tile_of(query),
    )  # fmt: skip
    return out


def paged(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    blocks: torch.Tensor,
    length: int,
    *,
    scale: float,
) -> torch.Tensor:
    """``tiled`` through a block table: one sequence, one head; blocks int32 [max_blocks]."""
    seq_lens = torch.tensor([length], dtype=torch.int32, device=query.device)
    caches = (key_cache[:, :, :1], value_cache[:, :, :1])
    return ragged(query[None, None], *caches, blocks[None], seq_lens, scale=scale)[0, 0]


@triton.jit
def _grouped_kernel(
    out, query, key_cache, value_cache, block_table, seq_lens, scale, table_stride, token_stride, head_stride,
    block_stride, kv_token_stride, kv_head_stride, GROUP: tl.constexpr, DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    seq = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    length = tl.load(seq_lens + seq)
    rows = tl.arange(0, ROWS)
    dims = tl.arange(0, DIM)
    at = seq * token_stride + ((head * GROUP + rows) * head_stride)[:, None] + dims[None, :]
    q = tl.load(query + at, mask=(rows < GROUP)[:, None], other=0.0)
    if UPCAST:
        q = q.to(tl.float32)
    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, DIM], tl.float32)
    last_visible = tl.zeros([ROWS], tl.int32) + length - 1
    for tile in range(tl.cdiv(length, TILE)):
        ids = _block_ids(block_table + seq * table_stride, tile, length, BLOCK_SIZE, TILE, True)
        best, total, acc = _attend_tile(
            q, best, total, acc, key_cache + head * kv_head_stride, value_cache + head * kv_head_stride,
            ids, tile, last_visible, length, scale, block_stride, kv_token_stride, DIM, DIM, BLOCK_SIZE, TILE,
            True, UPCAST,
        )  # fmt: skip
    result = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    tl.store(out + at, result.to(out.dtype.element_ty), mask=(rows < GROUP)[:, None])


def grouped(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    *,
    scale: float,
) -> torch.Tensor:
    """``ragged`` with the query heads of one K/V head as rows of one tile: keys are read once a group.

    One program for each sequence and K/V head: one long sequence leaves most of the GPU idle, which is what
    the split in ``attention.paged_attention`` mends.
    """
    check_machine()
    num_seqs, num_heads, head_dim = query.shape
    block_size, num_kv_heads = key_cache.shape[1:3]
    group = num_heads // num_kv_heads
    out = torch.empty_like(query)
    _grouped_kernel[(num_seqs, num_kv_heads)](
        out, query, key_cache, value_cache, block_table, seq_lens, scale * LOG2_E, block_table.stride(0),
        *query.stride()[:2], *key_cache.stride()[:3], GROUP=group, DIM=head_dim, BLOCK_SIZE=block_size,
        ROWS=max(16, triton.next_power_of_2(group)), TILE=tile_of(query), UPCAST=upcast(query),
    )  # fmt: skip
    return out
