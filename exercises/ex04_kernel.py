"""Exercise 04, the kernel: paged attention for decode, in Triton.

Each sequence has one new query token. It meets the keys and values of all its tokens, which lie in blocks
that the block table names. Query heads share K/V heads in groups: with 8 query heads and 2 K/V heads, query
heads 0 to 3 read K/V head 0, and 4 to 7 read head 1.

`decode_attention` launches `_decode_kernel`, whose parameters are yours to choose. Blocks that belong to
nobody and the unused end of each last block hold NaN. Table entries that the length does not need hold ids
that the cache does not have. Tensors are contiguous. In Triton's interpreter they are float32 or float16, on
a GPU bfloat16 as well; answers are due to within a percent, so TF32 will do.

One way to begin: a program for each sequence and K/V head, the group's query heads as rows of one tile of
16, then tiles of tokens through ex04.1, ex04.2 and ex04.3. `tl.dot` multiplies tiles, `tl.exp2` is the
hardware's power.

Check your work with `lesson check ex04.5` in a terminal, or with `check("ex04.5")` in a notebook cell. A call
that it shows is a batch that you can make: `kernels.batches.make_batch([(1, n) for n in lengths], heads, …)`.
`shift` was then added to the values, and `first_block` to the blocks' ids: the caches that belong to these hold
more than 2³¹ numbers, which takes addresses of 64 bits. A group may have more than 16 query heads. While it is
checked, this file may import torch, triton and numpy. What has to hold, besides plain good manners (every call comes
back, what is only read is left as it was, no address outside of the tensors is touched):

ex04.5 decode_attention
  - a Triton kernel computes the answer
  - a sequence of length 0 gets zeros
  - large scores do not overflow
  - sums have room for more than float16 holds
  - a block far into a large cache is found
  - nothing that is not the sequence's own comes through
  - within one block: the mean of the values, weighed by exp(scale · query · key)
  - a later block is folded into what was seen before
  - each sequence goes by its own length and its own line of the table
  - each query head meets the K/V head of its group
  - on a GPU: at least 50% of the speed of the course's kernel in the same run
"""

import torch
import triton
import triton.language as tl


@triton.jit
def _decode_kernel(
    out, query, key_cache, value_cache, block_table, seq_lens, scale, max_blocks, kv_heads,
    GROUP: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One sequence and one K/V head: the GROUP query heads that share it, in a tile of ROWS rows.

    `scale` counts log2(e) in, so that weights are powers of two. DIM is head_dim, TILE how many tokens are
    looked at together.
    """
    raise NotImplementedError("ex04.5: _decode_kernel is not written yet")


def decode_attention(
    out: torch.Tensor,
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
) -> None:
    """ex04.5: attention of one query token a sequence over its paged keys and values, into `out`.

    Args:
        out: [num_seqs, num_heads, head_dim], like query; holds anything before, the answer afterwards. A
            sequence of length 0 gets zeros.
        query: [num_seqs, num_heads, head_dim], float32, float16 or bfloat16; head_dim 64 or 128.
        key_cache, value_cache: [num_blocks, 16, num_kv_heads, head_dim], like query. num_heads is a multiple
            of num_kv_heads.
        block_table: int32 [num_seqs, max_blocks], the block of tokens 0 … 15, of the next 16, and so on.
        seq_lens: int32 [num_seqs], tokens of each sequence, 0 or more.
        scale: factor of the scores.
    """
    raise NotImplementedError("ex04.5: decode_attention is not written yet")
