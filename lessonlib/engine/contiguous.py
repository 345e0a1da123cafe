"""The plain K/V cache: every slot owns room for the longest request, used or not.

Notebook 03 shows what this wastes, and replaces it by pages.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from lessonlib.engine.checkpoint import LlamaConfig
from lessonlib.engine.model import Attend


class ContiguousCache:
    """Keys and values `[num_layers, slots, max_len, num_kv_heads, head_dim]`.

    `prefill` and `decode` give the `attend` that `Llama.forward` asks for.
    """

    def __init__(
        self, config: LlamaConfig, slots: int, max_len: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (config.num_layers, slots, max_len, config.num_kv_heads, config.head_dim)
        self.key = torch.zeros(shape, dtype=dtype, device=device)
        self.value = torch.zeros(shape, dtype=dtype, device=device)

    def prefill(self, slot: int) -> Attend:
        """One whole prompt enters `slot`: causal attention among its own tokens."""

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            self.key[layer, slot, : len(key)] = key
            self.value[layer, slot, : len(value)] = value
            query, key, value = (x.transpose(0, 1)[None] for x in (query, key, value))
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
            return mixed[0].transpose(0, 1)

        return attend

    def decode(self, slots: Tensor, positions: Tensor) -> Attend:
        """One token for each of `slots`, int64 `[n]`, at its position: attention to its own slot's past.

        Riders are at different floors, so all look as far as the highest and a mask hides what is not theirs.
        """
        length = int(positions.max()) + 1
        mask = (torch.arange(length, device=positions.device) <= positions[:, None])[:, None, None]

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            self.key[layer, slots, positions] = key
            self.value[layer, slots, positions] = value
            past_key = self.key[layer, slots, :length].transpose(1, 2)
            past_value = self.value[layer, slots, :length].transpose(1, 2)
            mixed = F.scaled_dot_product_attention(
                query[:, :, None], past_key, past_value, attn_mask=mask, enable_gqa=True
            )
            return mixed[:, :, 0]

        return attend
