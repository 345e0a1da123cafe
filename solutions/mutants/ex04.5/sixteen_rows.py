"""Has rows for sixteen query heads, whatever the group.

property: each query head meets the K/V head of its group
told: heads=(17, 1)
"""


def decode_attention(
    out, query, key_cache, value_cache, block_table, seq_lens, scale
):
    num_seqs, num_heads, head_dim = query.shape
    block_size, kv_heads = key_cache.shape[1:3]
    _decode_kernel[(num_seqs, kv_heads)](
        out, query, key_cache, value_cache, block_table, seq_lens, scale * 1.4426950408889634,
        block_table.shape[1], kv_heads, GROUP=num_heads // kv_heads, ROWS=16, DIM=head_dim,
        BLOCK_SIZE=block_size, TILE=64,
    )  # fmt: skip
