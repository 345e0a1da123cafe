"""Right, in PyTorch: keys and values are copied out of their blocks first.

property: a Triton kernel computes the answer
told: the same rows where no kernel is launched
"""

import torch


def decode_attention(
    out, query, key_cache, value_cache, block_table, seq_lens, scale
):
    group = query.shape[1] // key_cache.shape[2]
    out.zero_()
    for seq, length in enumerate(seq_lens.tolist()):
        if not length:
            continue
        blocks = block_table[seq, : -(-length // key_cache.shape[1])].long()
        keys, values = (cache[blocks].flatten(0, 1)[:length].float() for cache in (key_cache, value_cache))
        keys, values = (each.repeat_interleave(group, dim=1) for each in (keys, values))
        weights = (torch.einsum("hd,khd->hk", query[seq].float(), keys) * scale).softmax(dim=-1)
        out[seq] = torch.einsum("hk,khd->hd", weights, values).to(out.dtype)
