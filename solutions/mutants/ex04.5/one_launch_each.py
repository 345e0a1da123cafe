"""Right, and one launch for each sequence leaves most of the GPU idle.

property: on a GPU: at least 50% of the speed of the course's kernel in the same run
told: of the speed of the course's kernel on 128
tier: gpu
"""

def decode_attention(
    out, query, key_cache, value_cache, block_table, seq_lens, scale, right=decode_attention
):
    for seq in range(len(seq_lens)):
        one = slice(seq, seq + 1)
        right(out[one], query[one], key_cache, value_cache, block_table[one], seq_lens[one], scale)
