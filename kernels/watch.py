"""For notebook 04: a kernel's state after each tile, the effect of a missing mask, and each program's tiles.

The engine uses none of this. Each kernel here calls the same device functions as the real ones and also stores
their intermediate results.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.attention import LANES, LOG2_E, _attend_tile, _block_ids, _plan
from kernels.ladder import _attend_row
from kernels.validate import check_machine


class Steps(NamedTuple):
    """What ``ladder.tiled`` knows after each tile, on the CPU.

    scores float32 [tiles, tile], scaled by log2(e) as well, -inf beyond the end; best and total float32
    [tiles]; acc float32 [tiles, head_dim], not yet divided by total.
    """

    scores: torch.Tensor
    best: torch.Tensor
    total: torch.Tensor
    acc: torch.Tensor


@triton.jit
def _watched_kernel(
    scores, bests, totals, accs, query, keys, values, first, length, scale, DIM: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    dims = tl.arange(0, DIM)
    q = tl.load(query + dims).to(tl.float32)
    best = tl.full([], float("-inf"), tl.float32)
    total = tl.zeros([], tl.float32)
    acc = tl.zeros([DIM], tl.float32)
    for tile in range(tl.cdiv(length - first, TILE)):
        tokens = first + tile * TILE + tl.arange(0, TILE)
        present = tokens < length
        at = tokens[:, None] * DIM + dims[None, :]
        k = tl.load(keys + at, mask=present[:, None], other=0.0)
        v = tl.load(values + at, mask=present[:, None], other=0.0)
        best, total, acc = _attend_row(q, best, total, acc, k, v, present, scale)
        seen = tl.where(present, tl.sum(q[None, :] * k.to(tl.float32), 1) * scale, float("-inf"))
        tl.store(scores + tile * TILE + tl.arange(0, TILE), seen)
        tl.store(bests + tile, best)
        tl.store(totals + tile, total)
        tl.store(accs + tile * DIM + dims, acc)


def watch_tiles(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    scale: float,
    tile: int = 16,
    first: int = 0,
    last: int | None = None,
) -> Steps:
    """``ladder.tiled`` with its state written down after each tile; tokens [first, last) only.

    query [head_dim]; keys and values [length, head_dim]; head_dim and tile powers of two.
    """
    check_machine()
    length, head_dim = keys.shape
    last = length if last is None else last
    tiles = triton.cdiv(last - first, tile)
    shapes = ([tiles, tile], [tiles], [tiles], [tiles, head_dim])
    kept = [torch.empty(shape, dtype=torch.float32, device=query.device) for shape in shapes]
    _watched_kernel[(1,)](
        *kept, query, keys.contiguous(), values.contiguous(), first, last, scale * LOG2_E, DIM=head_dim,
        TILE=tile,
    )  # fmt: skip
    return Steps(*(each.cpu() for each in kept))


@triton.jit
def _careless_kernel(
    out, query, key_cache, value_cache, blocks, length, loaded, scale, block_stride, token_stride,
    DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    rows = tl.arange(0, ROWS)
    dims = tl.arange(0, DIM)
    q = tl.load(query + rows[:, None] * 0 + dims[None, :]).to(tl.float32)
    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, DIM], tl.float32)
    last_visible = tl.zeros([ROWS], tl.int32) + length - 1
    for tile in range(tl.cdiv(length, TILE)):
        ids = _block_ids(blocks, tile, loaded, BLOCK_SIZE, TILE, True)
        # `length` masks the scores, by way of last_visible; `loaded` masks what is loaded of K and V.
        best, total, acc = _attend_tile(
            q, best, total, acc, key_cache, value_cache, ids, tile, last_visible, loaded, scale, block_stride,
            token_stride, DIM, DIM, BLOCK_SIZE, TILE, True, False,
        )  # fmt: skip
    result = acc / total[:, None]
    tl.store(out + rows[:, None] * 0 + dims[None, :], result, mask=(rows == 0)[:, None])


def careless(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    blocks: torch.Tensor,
    length: int,
    *,
    scale: float,
    mask_scores: bool = True,
    mask_values: bool = True,
) -> torch.Tensor:
    """``ladder.paged`` with a mask left out, to see what it was for: float32 [head_dim].

    query [head_dim], caches [num_blocks, block_size, 1, head_dim] and blocks int32 [max_blocks], all float32.
    Without ``mask_scores`` every token of the last block counts; without ``mask_values`` the rows of K and V
    beyond the end are loaded, and only their scores are masked.
    """
    check_machine()
    block_size, head_dim = key_cache.shape[1], key_cache.shape[3]
    whole = triton.cdiv(length, block_size) * block_size
    out = torch.empty_like(query)
    _careless_kernel[(1,)](
        out, query, key_cache, value_cache, blocks, length if mask_scores else whole,
        length if mask_values and mask_scores else whole, scale * LOG2_E, *key_cache.stride()[:2], DIM=head_dim,
        BLOCK_SIZE=block_size, ROWS=16, TILE=16,
    )  # fmt: skip
    return out


@triton.jit
def _shares_kernel(shares, seq_lens, num_seqs, num_kv_heads, TILE: tl.constexpr, LANES: tl.constexpr):
    program = tl.program_id(0)
    first, last, _share, _longer, _seq, _before = _plan(
        seq_lens, num_seqs, num_kv_heads, program, tl.num_programs(0), TILE, LANES
    )
    tl.store(shares + 2 * program, first)
    tl.store(shares + 2 * program + 1, last)


def shares(seq_lens: torch.Tensor, num_kv_heads: int, *, programs: int, tile: int = 16) -> torch.Tensor:
    """The tiles [first, last) of each program, as the decode kernel plans them: int32 [programs, 2], on the CPU.

    Tiles are numbered by sequence, then K/V head, then position.
    """
    check_machine()
    planned = torch.empty(programs, 2, dtype=torch.int32, device=seq_lens.device)
    _shares_kernel[(programs,)](planned, seq_lens, seq_lens.shape[0], num_kv_heads, TILE=tile, LANES=LANES)
    return planned.cpu()
