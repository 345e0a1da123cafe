"""The kernels' signatures in PyTorch's own fused operators: what the engine runs on where Triton is not compiled.

`kernels.reference` explains; this is for speed on a CPU. Decodes of a batch share one call of PyTorch's
attention, over keys and values gathered from their blocks; each prompt has a call of its own. Nothing here
checks an argument: the Triton kernels check.
"""

import torch
import torch.nn.functional as F  # noqa: N812

from kernels.reference import write_kv

__all__ = ["paged_attention", "rms_norm", "rotary_write_kv", "silu_and_mul", "write_kv"]


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
    """Causal attention over paged keys and values; see ``kernels.attention.paged_attention``."""
    out = torch.zeros_like(query) if out is None else out.zero_()
    decodes = num_decodes or 0
    if decodes:
        lens = seq_lens[:decodes]
        keys, values, seen = _gather(key_cache, value_cache, block_table[:decodes], lens)
        grouped = query[:decodes].unflatten(1, (key_cache.shape[2], -1))  # heads of a group: rows of a tile
        mixed = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=seen[:, None, None], scale=scale)
        torch.mul(mixed.flatten(1, 2), (lens > 0)[:, None, None], out=out[:decodes])
    starts, lengths = query_start_loc.tolist(), seq_lens.tolist()
    for seq in range(decodes, len(lengths)):
        if lengths[seq] and starts[seq + 1] > starts[seq]:
            rows = slice(starts[seq], starts[seq + 1])
            table, length = block_table[seq : seq + 1], seq_lens[seq : seq + 1]
            keys, values, _ = _gather(key_cache, value_cache, table, length)
            out[rows] = _attend_prompt(query[rows], keys, values, scale)
    return out


def _gather(key_cache, value_cache, block_table, seq_lens):
    """Keys and values [num_seqs, num_kv_heads, longest, head_dim], and which of them each sequence sees.

    Beyond its end a sequence gets its own first token again, and a mask over it: whatever lies in the tail of
    a block, or in a block that is free, is not looked at. A weight of zero would not silence a NaN.
    """
    block_size = key_cache.shape[1]
    tokens = torch.arange(int(seq_lens.max()), device=block_table.device)
    seen = tokens < seq_lens[:, None]
    place = torch.where(seen, tokens, 0)
    slots = block_table.gather(1, (place // block_size).long()) * block_size + place % block_size

    def pick(cache: torch.Tensor) -> torch.Tensor:
        flat = cache.flatten(0, 1).flatten(1)
        picked = flat.index_select(0, slots.flatten()).view(*slots.shape, *cache.shape[2:])
        return picked.transpose(1, 2)

    return pick(key_cache), pick(value_cache), seen


def _attend_prompt(query, keys, values, scale):
    """[new, num_heads, head_dim] queries, the last `new` of the context's tokens."""
    new, length = query.shape[0], keys.shape[2]
    mask = None
    if new < length:
        tokens = torch.arange(length, device=query.device)
        mask = tokens[None, :] <= tokens[length - new :, None]
    mixed = F.scaled_dot_product_attention(
        query.transpose(0, 1)[None], keys, values, mask, is_causal=mask is None, scale=scale, enable_gqa=True
    )
    return mixed[0].transpose(0, 1)


def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    *,
    eps: float,
    residual: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """x over its root mean square, times weight; with a residual, x is added to it in place first."""
    normed = F.rms_norm(x if residual is None else residual.add_(x), weight.shape, weight, eps)
    return normed if out is None else out.copy_(normed)


def rotary_write_kv(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    positions: torch.Tensor,
    cos_sin: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
) -> None:
    """Rotate query in place by its position; write rotated key and plain value to their slots."""
    cos, sin = cos_sin.index_select(0, positions).unsqueeze(1).chunk(2, dim=-1)

    def rotate(x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)

    query.copy_(rotate(query))
    write_kv(rotate(key), value, key_cache, value_cache, slot_mapping)


def silu_and_mul(gate_up: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """silu(gate) × up, where gate and up are the two halves of the last dimension."""
    gate, up = gate_up.chunk(2, dim=-1)
    return torch.mul(F.silu(gate), up, out=out)
