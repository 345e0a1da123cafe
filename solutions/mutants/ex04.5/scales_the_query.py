"""Multiplies the query by the scale where it lies.

property: the inputs are left as they were
told: It changed query
"""

def decode_attention(
    out, query, key_cache, value_cache, block_table, seq_lens, scale, right=decode_attention
):
    query *= scale
    right(out, query, key_cache, value_cache, block_table, seq_lens, 1.0)
