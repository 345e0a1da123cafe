"""What each kernel computes, in plain PyTorch: one sequence at a time, nothing fused.

The signatures are the kernels'. Sums run in float64 where the inputs are float64, else in float32, and
results are rounded to the input's dtype. Nothing here checks an argument: the kernels check, these explain.
"""

import torch


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype is torch.float64 else tensor.float()


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
    """Causal attention over paged keys and values; see ``kernels.attention.paged_attention``.

    num_decodes, max_query_len, max_seq_len and workspace change nothing here: they only tell a kernel how to
    share out its work.
    """
    out = torch.empty_like(query) if out is None else out
    out.zero_()
    group = query.shape[1] // key_cache.shape[2]
    block_size = key_cache.shape[1]
    starts = query_start_loc.tolist()
    for seq, length in enumerate(seq_lens.tolist()):
        rows = slice(starts[seq], starts[seq + 1])
        new = rows.stop - rows.start
        if length == 0 or new == 0:
            continue
        blocks = block_table[seq, : -(-length // block_size)].long()
        keys = _wide(key_cache[blocks].flatten(0, 1)[:length]).repeat_interleave(group, dim=1)
        values = _wide(value_cache[blocks].flatten(0, 1)[:length]).repeat_interleave(group, dim=1)
        scores = torch.einsum("qhd,khd->hqk", _wide(query[rows]), keys) * scale
        positions = torch.arange(length - new, length, device=query.device)
        unseen = torch.arange(length, device=query.device)[None, :] > positions[:, None]
        weights = scores.masked_fill(unseen, float("-inf")).softmax(dim=-1)
        out[rows] = torch.einsum("hqk,khd->qhd", weights, values).to(out.dtype)
    return out


def write_kv(
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
) -> None:
    """Put each token's key and value into its slot; slot −1 is skipped."""
    kept = slot_mapping >= 0
    slots = slot_mapping[kept].long()
    block_size = key_cache.shape[1]
    key_cache[slots // block_size, slots % block_size] = key[kept]
    value_cache[slots // block_size, slots % block_size] = value[kept]


def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    *,
    eps: float,
    residual: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """x over its root mean square, times weight; with a residual, x is added to it in place first."""
    if residual is not None:
        x = residual.add_(x)
    wide = _wide(x)
    normed = (wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)).to(x.dtype) * weight
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
    cos, sin = _wide(cos_sin)[positions.long()].unsqueeze(1).chunk(2, dim=-1)

    def rotate(x: torch.Tensor) -> torch.Tensor:
        first, second = _wide(x).chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)

    query.copy_(rotate(query))
    write_kv(rotate(key), value, key_cache, value_cache, slot_mapping)


def silu_and_mul(gate_up: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """silu(gate) × up, where gate and up are the two halves of the last dimension."""
    gate, up = _wide(gate_up).chunk(2, dim=-1)
    product = (torch.nn.functional.silu(gate) * up).to(gate_up.dtype)
    return product if out is None else out.copy_(product)


def skinny_linear(x: torch.Tensor, weight: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """x times a matrix [out_features, in_features], transposed."""
    product = (_wide(x) @ _wide(weight).T).to(x.dtype)
    return product if out is None else out.copy_(product)


# ----- sampling -----

# SplitMix64's increment and its finalizer's factors, as int64 holds them.
GOLDEN, MIX_1, MIX_2 = (
    value - (1 << 64) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def sample(
    logits: torch.Tensor,
    keys: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    *,
    has_cuts: bool = True,
) -> torch.Tensor:
    """A token for each row; see ``kernels.sampling.sample``.

    Exponential race: the token whose exponential clock, at the rate of its probability, rings first. has_cuts
    changes nothing but the work.
    """
    tokens = logits.argmax(-1)
    drawn = (temperature > 0).nonzero()[:, 0]
    heated = logits[drawn].float() / temperature[drawn, None].float()
    if has_cuts:
        heated = _keep_most_probable(heated, top_k[drawn, None], top_p[drawn, None].float())
    noise = uniform(keys[drawn], logits.shape[-1])
    tokens[drawn] = (heated.log_softmax(-1) - (-noise.log()).log()).argmax(-1)
    return tokens


def _keep_most_probable(logits: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Logits with -inf for all but the `top_k` most probable, and of those the fewest that hold `top_p`."""
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    ranks = torch.arange(logits.shape[-1], device=logits.device)
    ordered = ordered.masked_fill(ranks >= top_k, -torch.inf)
    shares = ordered.softmax(-1)
    before = shares.cumsum(-1) - shares
    # Without a cut nothing goes: rounding could put the sum before the last tokens at 1. The first always stays: in
    # float32 the smallest shares are 0.
    ordered = ordered.masked_fill((before >= top_p) & (top_p < 1) & (ranks > 0), -torch.inf)
    return logits.scatter(-1, order, ordered)


def uniform(keys: torch.Tensor, count: int) -> torch.Tensor:
    """Numbers strictly between 0 and 1, float32 `[num_rows, count]`, from int64 `[num_rows]` keys.

    Counter-based random numbers (Salmon et al. 2011): number i of a key is a hash of both.
    """
    bits = _mix(keys[:, None] + torch.arange(count, device=keys.device) * GOLDEN)
    return ((bits >> 41 & (1 << 23) - 1).float() + 0.5) * 2.0**-23


def draw_key(seed: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """The key of a draw: of a request's seed and of how many tokens it was given before, int64 both."""
    return _mix(_mix(seed) + position * GOLDEN)


def _mix(x: torch.Tensor) -> torch.Tensor:
    """SplitMix64's finalizer (Steele et al. 2014) on int64, which wraps as uint64 does; `>>` keeps the sign, so it is
    masked off."""
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * MIX_1
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * MIX_2
    return x ^ (x >> 31 & (1 << 33) - 1)
