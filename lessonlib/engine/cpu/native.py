"""The engine's operators for a CPU, PyTorch's own where it has them, compiled loops where it has only pieces.

There are few of them, since each call costs as much as its work. `kernels.reference` explains what is computed;
here it is arranged for speed. Weights are kept in the layout that is multiplied fastest, and whatever all layers share
(masks, which token lies where) is worked out once a step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from kernels import reference
from lessonlib.engine.cpu import amx, loops
from lessonlib.engine.inputs import StepInputs

ALIKE = 32  # tokens: prompts that differ by less go side by side
Matrix = Tensor | amx.Matrix


def pack(weight: Tensor) -> Matrix:
    """A matrix `[out_features, in_features]` for `linear`: in tiles for AMX, else in oneDNN's own layout.

    oneDNN's operators are the ones that PyTorch's compiler uses on a CPU.
    """
    if amx.fits(weight):
        return amx.pack(weight)
    if not torch.backends.mkldnn.is_available() or weight.dtype is torch.float16:
        return weight
    if weight.dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return weight  # a processor without AVX-512
    return torch.ops.mkldnn._reorder_linear_weight(weight)


def linear(x: Tensor, weight: Matrix) -> Tensor:
    """x `[num_tokens, in_features]` times a packed weight, transposed."""
    if isinstance(weight, amx.Matrix):
        return amx.product(x, weight)
    if not weight.is_mkldnn:
        return F.linear(x, weight)
    return torch.ops.mkldnn._linear_pointwise.default(x, weight, None, "none", [], "")


def rms_norm(x: Tensor, weight: Tensor, *, eps: float, residual: Tensor | None = None) -> Tensor:
    """x over its root mean square, times weight; with a residual, x is added to it in place first."""
    compute = loops.rms_norm if x.dtype in loops.DTYPES else reference.rms_norm
    return compute(x, weight, eps=eps, residual=residual)


def pack_gate_up(weight: Tensor) -> amx.Matrix | tuple[Matrix, Matrix]:
    """The two halves of a matrix for `gated`: tile beside tile for AMX, else each for itself."""
    if amx.fits(weight):
        return amx.pack(weight, is_gate_up=True)
    gate, up = weight.chunk(2)
    return pack(gate), pack(up)


def gated(x: Tensor, gate_up: amx.Matrix | tuple[Tensor, Tensor]) -> Tensor:
    """silu(x gateᵀ) × (x upᵀ): the silu and the product are done while the sums are still at hand."""
    if isinstance(gate_up, amx.Matrix):
        return amx.product(x, gate_up)
    gate, up = gate_up
    if not gate.is_mkldnn:
        return F.silu(F.linear(x, gate)).mul_(F.linear(x, up))
    opened = torch.ops.mkldnn._linear_pointwise.default(x, gate, None, "swish", [], "")
    return torch.ops.mkldnn._linear_pointwise.binary(x, opened, up, None, "mul")


def argmax(logits: Tensor) -> Tensor:
    """The index of each row's largest value. On a CPU torch's own takes five times as long in bfloat16."""
    return logits.max(-1).indices


class NativeAttention:
    """One step's attention over a paged cache; made anew each step, called once a layer.

    Args:
        inputs: the step's, on the CPU.
        cache: `[num_layers, num_blocks, block_size, 2, num_kv_heads, head_dim]`, keys before values.
        cos_sin: `[max_positions, head_dim]`, float32.
        num_heads: query heads.
    """

    def __init__(self, inputs: StepInputs, cache: Tensor, cos_sin: Tensor, num_heads: int) -> None:
        self.cache, self.num_heads = cache.flatten(1, 2), num_heads
        self.parts = list(_parts(inputs, cache))
        self.rotate_and_store = _rotation(inputs, self.cache, cos_sin)

    def __call__(self, layer: int, heads: Tensor) -> Tensor:
        """See `engine.model.Attend`."""
        self.rotate_and_store(layer, heads)
        queries, cache = heads[:, : self.num_heads], self.cache[layer]
        if len(self.parts) == 1:
            return self.parts[0].attend(queries, cache)
        out = torch.empty_like(queries)
        for part in self.parts:
            out.index_copy_(0, part.tokens, part.attend(queries, cache))
        return out


def _rotation(inputs: StepInputs, cache: Tensor, cos_sin: Tensor) -> Callable[[int, Tensor], None]:
    """What rotates a layer's queries and keys in place, and stores its keys and values."""
    num_kv_heads = cache.shape[-2]

    def with_loops(layer: int, heads: Tensor) -> None:
        loops.rotate_and_store(loops.array(heads), angles, where, slots, caches[layer])

    def with_reference(layer: int, heads: Tensor) -> None:
        query, key, value = heads.split(
            [heads.shape[1] - 2 * num_kv_heads, num_kv_heads, num_kv_heads], dim=1
        )
        keys, values = cache[layer, :, None].unbind(2)
        reference.rotary_write_kv(
            query, key, value, inputs.positions, cos_sin, keys, values, inputs.slot_mapping
        )

    if cache.dtype not in loops.DTYPES:
        return with_reference
    angles, where, slots = cos_sin.numpy(), inputs.positions.numpy(), inputs.slot_mapping.numpy()
    caches = loops.array(cache)
    return with_loops


def _parts(inputs: StepInputs, cache: Tensor) -> Iterator[_Decodes | _Chunk | _Prompts]:
    """The step's rows by kind; whole prompts of about the same length together."""
    starts, lengths = inputs.query_start_loc.tolist(), inputs.seq_lens.tolist()
    if inputs.num_decodes:
        rows = slice(0, inputs.num_decodes)
        yield _Decodes(rows, _Context(inputs, rows, cache))
    whole = defaultdict[int, list[int]](list)
    for seq in range(inputs.num_decodes, inputs.num_seqs):
        if starts[seq + 1] - starts[seq] == lengths[seq]:
            whole[lengths[seq] // ALIKE].append(seq)
        else:
            context = _Context(inputs, slice(seq, seq + 1), cache)
            yield _Chunk(slice(starts[seq], starts[seq + 1]), context, cache.dtype)
    for seqs in whole.values():
        yield _Prompts(inputs, [starts[seq] for seq in seqs], [lengths[seq] for seq in seqs])


class _Decodes:
    """Rows of one token: the heads of a group are the rows of one tile, so K/V is read once a group."""

    def __init__(self, rows: slice, context: _Context) -> None:
        self.tokens, self.rows, self.context = torch.arange(rows.stop), rows, context

    def attend(self, queries: Tensor, cache: Tensor) -> Tensor:
        keys, values = self.context.pick(cache)
        grouped = queries[self.rows].unflatten(1, (keys.shape[1], -1))
        return F.scaled_dot_product_attention(grouped, keys, values, self.context.mask).flatten(1, 2)


class _Chunk:
    """A piece of a prompt, whose earlier tokens are in the cache."""

    def __init__(self, rows: slice, context: _Context, dtype: torch.dtype) -> None:
        self.tokens, self.rows, self.context = torch.arange(rows.start, rows.stop), rows, context
        everyone = torch.arange(context.longest)
        self.mask = _as_weights(everyone[None, :] <= everyone[rows.start - rows.stop :, None], dtype)

    def attend(self, queries: Tensor, cache: Tensor) -> Tensor:
        keys, values = self.context.pick(cache)
        query = queries[self.rows].transpose(0, 1)[None]
        mixed = F.scaled_dot_product_attention(query, keys, values, self.mask, enable_gqa=True)
        return mixed[0].transpose(0, 1)


class _Prompts:
    """Whole prompts side by side, the shorter ones filled up behind their end, where causality hides it."""

    def __init__(self, inputs: StepInputs, starts: list[int], lengths: list[int]) -> None:
        offset = torch.arange(max(lengths))
        held = offset < torch.tensor(lengths)[:, None]
        grid = torch.where(held, torch.tensor(starts)[:, None] + offset, starts[0])
        self.tokens, self.kept = grid[held], held.flatten().nonzero().flatten()
        self.rows, self.shape = grid.flatten(), grid.shape
        self.slots = inputs.slot_mapping[self.rows]

    def attend(self, queries: Tensor, cache: Tensor) -> Tensor:
        keys, values = _keys_values(cache, self.slots, self.shape)
        query = queries.index_select(0, self.rows).unflatten(0, self.shape).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(query, keys, values, is_causal=True, enable_gqa=True)
        return mixed.transpose(1, 2).flatten(0, 1).index_select(0, self.kept)


class _Context:
    """Where the tokens of some sequences lie.

    Beyond its end a sequence gets its own first token again, and a mask over it: whatever lies in the tail of
    a block, or in a block that is free, is not looked at. A weight of zero would not silence a NaN.
    """

    def __init__(self, inputs: StepInputs, seqs: slice, cache: Tensor) -> None:
        lengths, block_size = inputs.seq_lens[seqs], cache.shape[2]
        self.longest = int(lengths.max())
        tokens = torch.arange(self.longest)
        seen = tokens < lengths[:, None]
        index = torch.where(seen, tokens, 0)
        slots = (
            inputs.block_table[seqs].long().gather(1, index // block_size) * block_size + index % block_size
        )
        self.slots, self.shape = slots.flatten(), slots.shape
        self.mask = None if bool(seen.all()) else _as_weights(seen[:, None, None], cache.dtype)

    def pick(self, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Their keys and values; see `_keys_values`."""
        return _keys_values(cache, self.slots, self.shape)


def _as_weights(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask as what is added to scores, made once a step: PyTorch would make it in each layer."""
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -torch.inf)


def _keys_values(cache: Tensor, slots: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Keys and values `[num_seqs, num_kv_heads, longest, head_dim]` out of one layer's tokens."""
    keys, values = cache.index_select(0, slots).view(*shape, *cache.shape[1:]).unbind(2)
    return keys.transpose(1, 2), values.transpose(1, 2)
