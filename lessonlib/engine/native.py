"""The engine's operators in PyTorch's own: few of them, since on a CPU each call costs as much as its work.

`kernels.reference` explains what is computed; here it is arranged for speed. Weights are kept in the layout that
oneDNN multiplies fastest, and whatever all layers share (angles, masks, which token lies where) is worked out
once a step.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from lessonlib.engine.inputs import StepInputs

HUGE_PAGE = 2**21  # bytes
MADV_COLLAPSE = 25
# A stretch of memory that no file lies behind (inode 0), and how many KiB of it are in use.
MEMORY = re.compile(r"^(\S+) rw-p \S+ \S+ 0\b.*\n(?:.*\n)*?Rss: +(\d+) kB", re.MULTILINE)


def pack(weight: Tensor) -> Tensor:
    """A matrix `[out_features, in_features]` for `linear`, in oneDNN's own layout where PyTorch has it.

    The operator is the one that PyTorch's compiler uses on a CPU.
    """
    if weight.dtype is torch.float16 or not torch.backends.mkldnn.is_available():
        return weight
    return torch.ops.mkldnn._reorder_linear_weight(weight)


def use_huge_pages() -> None:
    """Ask Linux to move what this process holds in memory to pages of 2 MiB.

    A step reads all weights, and in pages of 4 KiB it looks up 65,000 places for them: a sixth of its time where it
    was measured. Where the system does not know the request (it came with Linux 6.1), or has no room, nothing changes.
    """
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None).madvise
    for span, resident in MEMORY.findall(Path("/proc/self/smaps").read_text()):
        first, end = (int(address, 16) for address in span.split("-"))
        is_in_use = 2 * 1024 * int(resident) >= end - first  # what was never touched stays unborn
        first = -(-first // HUGE_PAGE) * HUGE_PAGE
        if is_in_use and first + HUGE_PAGE <= end:
            madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), MADV_COLLAPSE)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x `[num_tokens, in_features]` times a packed weight, transposed."""
    if not weight.is_mkldnn:
        return F.linear(x, weight)
    return torch.ops.mkldnn._linear_pointwise.default(x, weight, None, "none", [], "")


def rms_norm(x: Tensor, weight: Tensor, *, eps: float, residual: Tensor | None = None) -> Tensor:
    """x over its root mean square, times weight; with a residual, x is added to it in place first.

    On a CPU PyTorch has no single kernel for that, but one for layer norm. Of x and −x together the mean is zero
    and the variance is the mean square.
    """
    if residual is not None:
        x = residual.add_(x)
    both = torch.cat((x, -x), dim=-1)
    return F.layer_norm(both, both.shape[1:], eps=eps)[:, : x.shape[1]] * weight


def pack_gate_up(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The two halves of a matrix for `gated`, each for itself."""
    gate, up = weight.chunk(2)
    return pack(gate), pack(up)


def gated(x: Tensor, gate_up: tuple[Tensor, Tensor]) -> Tensor:
    """silu(x gateᵀ) × (x upᵀ): oneDNN does the silu and the product while it still holds the sums."""
    gate, up = gate_up
    if not gate.is_mkldnn:
        return F.silu(F.linear(x, gate)).mul_(F.linear(x, up))
    opened = torch.ops.mkldnn._linear_pointwise.default(x, gate, None, "swish", [], "")
    return torch.ops.mkldnn._linear_pointwise.binary(x, opened, up, None, "mul")


def likeliest(logits: Tensor) -> Tensor:
    """The place of each row's largest value. On a CPU `argmax` takes five times as long in bfloat16."""
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
        self.num_kv_heads, head_dim = cache.shape[-2:]
        self.scale = head_dim**-0.5
        cos, sin = cos_sin[inputs.positions.long()].to(cache.dtype)[:, None].chunk(2, dim=-1)
        self.cos, self.sin = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
        self.stored_at = inputs.slot_mapping.long()
        self.attend: list[tuple[slice, Callable[[Tensor, Tensor], Tensor]]] = []
        block_size, decodes = cache.shape[2], inputs.num_decodes
        if decodes:
            every = _Gathered(inputs.block_table[:decodes], inputs.seq_lens[:decodes], block_size)
            self.attend.append((slice(0, decodes), lambda query, cache: self._decodes(query, cache, every)))
        starts = inputs.query_start_loc.tolist()
        for seq in range(decodes, inputs.num_seqs):
            rows, one = slice(starts[seq], starts[seq + 1]), slice(seq, seq + 1)
            context = _Gathered(inputs.block_table[one], inputs.seq_lens[one], block_size)
            mask = context.causal_mask(rows.stop - rows.start)
            self.attend.append((rows, self._prompt_with(context, mask)))

    def __call__(self, layer: int, heads: Tensor) -> Tensor:
        """See `engine.model.Attend`."""
        rotated = heads[:, : self.num_heads + self.num_kv_heads]
        turned = rotated.roll(rotated.shape[-1] // 2, -1).mul_(self.sin)
        rotated.mul_(self.cos).add_(turned)
        cache = self.cache[layer]
        cache.index_copy_(0, self.stored_at, heads[:, self.num_heads :].unflatten(1, (2, -1)))
        query = heads[:, : self.num_heads]
        parts = [attend(query[rows], cache) for rows, attend in self.attend]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _decodes(self, query: Tensor, cache: Tensor, context: _Gathered) -> Tensor:
        """One token each: the heads of a group are the rows of one tile, so K/V is read once a group."""
        keys, values = context.pick(cache)
        grouped = query.unflatten(1, (self.num_kv_heads, -1))
        mixed = F.scaled_dot_product_attention(grouped, keys, values, context.seen, scale=self.scale)
        return mixed.flatten(1, 2)

    def _prompt_with(self, context: _Gathered, mask: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
        def prompt(query: Tensor, cache: Tensor) -> Tensor:
            keys, values = context.pick(cache)
            query, whole = query.transpose(0, 1)[None], mask is None
            mixed = F.scaled_dot_product_attention(
                query, keys, values, mask, is_causal=whole, scale=self.scale, enable_gqa=True
            )
            return mixed[0].transpose(0, 1)

        return prompt


class _Gathered:
    """Where the tokens of some sequences lie.

    Beyond its end a sequence gets its own first token again, and a mask over it: whatever lies in the tail of
    a block, or in a block that is free, is not looked at. A weight of zero would not silence a NaN.
    """

    def __init__(self, block_table: Tensor, seq_lens: Tensor, block_size: int) -> None:
        self.longest = int(seq_lens.max())
        tokens = torch.arange(self.longest)
        seen = tokens < seq_lens[:, None]
        place = torch.where(seen, tokens, 0)
        slots = block_table.long().gather(1, place // block_size) * block_size + place % block_size
        self.slots, self.shape = slots.flatten(), slots.shape
        self.seen = None if bool(seen.all()) else seen[:, None, None]

    def pick(self, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values `[num_seqs, num_kv_heads, longest, head_dim]` out of one layer's tokens."""
        picked = cache.index_select(0, self.slots).view(*self.shape, *cache.shape[1:])
        keys, values = picked.unbind(2)
        return keys.transpose(1, 2), values.transpose(1, 2)

    def causal_mask(self, new: int) -> Tensor | None:
        """Which tokens each of the last `new` sees; None where that is all of them and plain causality."""
        if new == self.longest:
            return None
        tokens = torch.arange(self.longest)
        return tokens[None, :] <= tokens[-new:, None]
