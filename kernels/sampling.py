"""Draws a token from each row of logits in one launch, without sorting: a race, and cuts found by counting.

The race is the Gumbel-max trick (Gumbel 1954; Maddison et al. 2014): the largest of logit / temperature + noise is a
draw from the softmax. So the vocabulary is read once and no probability is computed. What top-k and top-p leave is
all above an edge. The edge is found by halving: the bits of a float, read as an integer, are ordered as the floats are,
and each pass over a row counts what lies above the middle of what is left (the idea of radix select).
"""

import torch
import triton
import triton.language as tl

from kernels.reference import GOLDEN, MIX_1, MIX_2
from kernels.validate import FLOATS, check_machine, check_tensor

TILE = 4096
LOWEST = tl.constexpr(-(2**31))
# Bits at the end of a float32 that are zero in what was loaded: they need no halving.
EMPTY_BITS = {torch.bfloat16: 16, torch.float16: 13, torch.float32: 0}
_GOLDEN, _MIX_1, _MIX_2 = tl.constexpr(GOLDEN), tl.constexpr(MIX_1), tl.constexpr(MIX_2)


@triton.jit
def _ordinal(x, EMPTY: tl.constexpr):
    """Floats as int32 in the same order."""
    bits = x.to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)) >> EMPTY


@triton.jit
def _float_of(ordinal, EMPTY: tl.constexpr):
    """The float of an ordinal."""
    bits = ordinal << EMPTY
    return (bits ^ ((bits >> 31) & (0x7FFFFFFF >> EMPTY << EMPTY))).to(tl.float32, bitcast=True)


@triton.jit
def _above(line, edge, top, temperature, vocab_size, EMPTY: tl.constexpr, TILE: tl.constexpr):
    """How many tokens have an ordinal above `edge`, and their weights exp((logit - top) / temperature), added up."""
    counts = tl.zeros([TILE], tl.int32)
    weights = tl.zeros([TILE], tl.float32)
    for start in range(0, vocab_size, TILE):
        at = start + tl.arange(0, TILE)
        x = tl.load(line + at, mask=at < vocab_size, other=-float("inf")).to(tl.float32)
        is_above = (_ordinal(x, EMPTY) > edge) & (at < vocab_size)
        counts += is_above.to(tl.int32)
        weights += tl.where(is_above, tl.exp((x - top) / temperature), 0.0)
    return tl.sum(counts), tl.sum(weights)


@triton.jit
def _lowest_edge(
    line, low, high, most, enough, top, temperature, vocab_size, EMPTY: tl.constexpr, TILE: tl.constexpr
):
    """The lowest edge from `low` to `high` with fewer than `most` tokens and less than `enough` weight above it, and
    that count and weight."""
    low, high = low.to(tl.int64), high.to(tl.int64)
    while low < high:
        middle = (low + high) >> 1
        count, weight = _above(line, middle.to(tl.int32), top, temperature, vocab_size, EMPTY, TILE)
        if (count < most) & (weight < enough):
            high = middle
        else:
            low = middle + 1
    count, weight = _above(line, low.to(tl.int32), top, temperature, vocab_size, EMPTY, TILE)
    return low.to(tl.int32), count, weight


@triton.jit
def _edge(line, temperature, top_k, top_p, vocab_size, EMPTY: tl.constexpr, TILE: tl.constexpr):
    """Where a row is cut: (ordinal of the last value that stays, how many tokens of just that value stay)."""
    tops = tl.full([TILE], -float("inf"), tl.float32)
    for start in range(0, vocab_size, TILE):
        at = start + tl.arange(0, TILE)
        tops = tl.maximum(tops, tl.load(line + at, mask=at < vocab_size, other=-float("inf")).to(tl.float32))
    top = tl.max(tops)
    first, last = tl.full([], LOWEST >> EMPTY, tl.int32), _ordinal(top, EMPTY)
    high = tl.where(top_k < vocab_size, last, first)
    edge, count, weight = _lowest_edge(
        line, first, high, top_k, float("inf"), top, temperature, vocab_size, EMPTY, TILE
    )
    equals = top_k - count
    if top_p < 1:
        # What top-k leaves; where it cuts nothing, all that is above the lowest float.
        of_edge = tl.exp((_float_of(edge, EMPTY) - top) / temperature)
        enough = top_p * (weight + tl.where(edge > first, equals * of_edge, 0.0))
        of_k, edge_of_k = equals, edge
        edge, count, weight = _lowest_edge(
            line, edge, last, vocab_size + 1, enough, top, temperature, vocab_size, EMPTY, TILE
        )
        of_edge = tl.exp((_float_of(edge, EMPTY) - top) / temperature)
        needed = tl.maximum(tl.ceil((enough - weight) / of_edge), 1.0)
        most = tl.where(edge > edge_of_k, vocab_size, of_k).to(tl.float32)
        equals = tl.minimum(needed, most).to(tl.int32)
    return edge, equals


@triton.jit
def _mix(x):
    """SplitMix64's finalizer; int64 wraps, and `>>` keeps the sign, which is masked off."""
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * _MIX_1
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * _MIX_2
    return x ^ (x >> 31 & (1 << 33) - 1)


@triton.jit
def _gumbel(key, tokens):
    """Noise of each token, float32: -log(-log(u)) with u of `reference.uniform`."""
    bits = _mix(key + tokens.to(tl.int64) * _GOLDEN)
    uniform = ((bits >> 41 & (1 << 23) - 1).to(tl.float32) + 0.5) * 2.0**-23
    # A card's logarithm is coarse next to 1, where the winners come from: there, the first terms of its series.
    rest = 1.0 - uniform
    series = rest * (1.0 + rest * (0.5 + rest * (1 / 3 + rest * 0.25)))
    return -tl.log(tl.where(rest < 1 / 64, series, -tl.log(uniform)))


@triton.jit
def _sample_kernel(
    tokens, logits, keys, temperatures, top_ks, top_ps, vocab_size, stride, HAS_CUTS: tl.constexpr,
    EMPTY: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One row: its edge, if it is cut, then the race among what is left."""
    row = tl.program_id(0).to(tl.int64)
    line = logits + row * stride
    key = tl.load(keys + row)
    temperature = tl.load(temperatures + row).to(tl.float32)
    edge, equals = tl.full([], LOWEST, tl.int32), vocab_size
    if HAS_CUTS and temperature > 0:
        top_k, top_p = tl.load(top_ks + row).to(tl.int32), tl.load(top_ps + row).to(tl.float32)
        edge, equals = _edge(line, temperature, top_k, top_p, vocab_size, EMPTY, TILE)
    best, winner, seen = -float("inf"), 0, 0
    for start in range(0, vocab_size, TILE):
        at = start + tl.arange(0, TILE)
        score = tl.load(line + at, mask=at < vocab_size, other=-float("inf")).to(tl.float32)
        if HAS_CUTS:  # of equals at the edge the first ones stay
            ordinal = _ordinal(score, EMPTY)
            is_equal = ordinal == edge
            rank = seen + tl.cumsum(is_equal.to(tl.int32), 0)
            seen += tl.sum(is_equal.to(tl.int32))
            score = tl.where((ordinal > edge) | (is_equal & (rank <= equals)), score, -float("inf"))
        if temperature > 0:
            score = score / temperature + _gumbel(key, at)
        best_here, first = tl.max(score, 0, return_indices=True)
        if best_here > best:
            best, winner = best_here, start + first
    tl.store(tokens + row, winner)


def sample(
    logits: torch.Tensor,
    keys: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    *,
    has_cuts: bool = True,
) -> torch.Tensor:
    """A token for each row, as `reference.sample` draws it; of equal logits at a cut the first ones stay.

    Args:
        logits: [num_rows, vocab_size], float16, bfloat16 or float32.
        keys: int64 [num_rows], see `reference.draw_key`: they alone decide the noise.
        temperature: float64 [num_rows]; 0: the largest logit, the first of equals.
        top_k: int64 [num_rows], from 1; vocab_size or more cuts nothing.
        top_p: float64 [num_rows], above 0; 1 cuts nothing.
        has_cuts: False where the caller knows that no row is cut; top_k and top_p are not read then.

    Returns:
        int64 [num_rows].

    Raises:
        ValueError: an argument's shape, dtype, device or stride is not as above.
        RuntimeError: there is no GPU and TRITON_INTERPRET=1 is not set.
    """
    check_machine()
    check_tensor("logits", logits, ["num_rows", "vocab_size"], FLOATS, logits.device)
    num_rows, vocab_size = logits.shape
    for name, column, dtype in (
        ("keys", keys, torch.int64),
        ("temperature", temperature, torch.float64),
        ("top_k", top_k, torch.int64),
        ("top_p", top_p, torch.float64),
    ):
        check_tensor(name, column, [num_rows], [dtype], logits.device)
    tokens = torch.empty(num_rows, dtype=torch.int64, device=logits.device)
    if num_rows:
        _sample_kernel[(num_rows,)](
            tokens, logits, keys, temperature, top_k, top_p, vocab_size, logits.stride(0), HAS_CUTS=has_cuts,
            EMPTY=EMPTY_BITS[logits.dtype], TILE=TILE, num_warps=16,
        )  # fmt: skip
    return tokens
