"""A Llama in PyTorch, with the attention left open.

The model computes everything that looks at one token at a time. What looks at other tokens is handed in as
`attend`, so that the same weights ride with a contiguous cache here and a paged one later.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from lessonlib.engine.checkpoint import LlamaConfig, load_weights
from lessonlib.errors import CourseError

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, query, key, value) -> attention output.

query, output: `[num_tokens, num_heads, head_dim]`; key, value: `[num_tokens, num_kv_heads, head_dim]`.
"""


def rope_frequencies(config: LlamaConfig) -> Tensor:
    """Rotations per position, float32 `[head_dim / 2]` (Su et al., 2021), rescaled as Llama 3 does where asked."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    return _llama3_rescaled(frequencies, config.rope_scaling) if config.rope_scaling else frequencies


def _llama3_rescaled(frequencies: Tensor, scaling: dict) -> Tensor:
    """Slow rotations are slowed by `factor`, fast ones kept, those between blended."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    keep = ((turns - low) / (high - low)).clamp(0, 1)
    return keep * frequencies + (1 - keep) * frequencies / scaling["factor"]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of `[num_tokens, heads, head_dim]`; cos, sin `[num_tokens, 1, head_dim / 2]`."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Llama:
    """Weights and the forward pass of a Llama-architecture model.

    Args:
        folder: where config.json and the safetensors are.
        dtype, device: of the weights and of the computation.

    Raises `CourseError` where a tensor is missing.
    """

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        self.config = LlamaConfig.load(folder)
        self.dtype, self.device = dtype, torch.device(device)
        self._weights = load_weights(folder, dtype, device)
        self._frequencies = rope_frequencies(self.config).to(device)
        self._require_all(folder)

    def forward(self, token_ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Hidden states `[num_tokens, hidden_size]` of int64 `token_ids`, `positions` `[num_tokens]`."""
        angles = positions[:, None, None].float() * self._frequencies
        cos, sin = angles.cos().to(self.dtype), angles.sin().to(self.dtype)
        hidden = F.embedding(token_ids, self._weights["model.embed_tokens.weight"])
        for layer in range(self.config.num_layers):
            hidden = hidden + self._attention(layer, self._norm(hidden, layer, "input"), cos, sin, attend)
            hidden = hidden + self._mlp(layer, self._norm(hidden, layer, "post_attention"))
        return self._rms_norm(hidden, "model.norm.weight")

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary `[num_tokens, vocab_size]`."""
        tied = self.config.tie_word_embeddings
        return F.linear(hidden, self._weights["model.embed_tokens.weight" if tied else "lm_head.weight"])

    def _attention(self, layer: int, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        config = self.config
        query = self._linear(x, layer, "self_attn.q_proj").view(-1, config.num_heads, config.head_dim)
        key = self._linear(x, layer, "self_attn.k_proj").view(-1, config.num_kv_heads, config.head_dim)
        value = self._linear(x, layer, "self_attn.v_proj").view(-1, config.num_kv_heads, config.head_dim)
        mixed = attend(layer, rotate(query, cos, sin), rotate(key, cos, sin), value)
        return self._linear(mixed.flatten(1), layer, "self_attn.o_proj")

    def _mlp(self, layer: int, x: Tensor) -> Tensor:
        gate = F.silu(self._linear(x, layer, "mlp.gate_proj"))
        return self._linear(gate * self._linear(x, layer, "mlp.up_proj"), layer, "mlp.down_proj")

    def _linear(self, x: Tensor, layer: int, name: str) -> Tensor:
        return F.linear(x, self._weights[f"model.layers.{layer}.{name}.weight"])

    def _norm(self, x: Tensor, layer: int, name: str) -> Tensor:
        return self._rms_norm(x, f"model.layers.{layer}.{name}_layernorm.weight")

    def _rms_norm(self, x: Tensor, name: str) -> Tensor:
        """Root-mean-square norm in float32, as the checkpoints were trained."""
        full = x.float()
        scale = torch.rsqrt(full.pow(2).mean(-1, keepdim=True) + self.config.rms_norm_eps)
        return (full * scale).to(x.dtype) * self._weights[name]

    def _require_all(self, folder: Path) -> None:
        per_layer = (
            [f"self_attn.{name}_proj" for name in "qkvo"]
            + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
            + ["input_layernorm", "post_attention_layernorm"]
        )
        needed = ["model.embed_tokens.weight", "model.norm.weight"]
        needed += [] if self.config.tie_word_embeddings else ["lm_head.weight"]
        needed += [
            f"model.layers.{i}.{name}.weight" for i in range(self.config.num_layers) for name in per_layer
        ]
        missing = [name for name in needed if name not in self._weights]
        if missing:
            raise CourseError(
                f"{folder} has no tensor {missing[0]} ({len(missing)} missing): fetch the model again"
            )
