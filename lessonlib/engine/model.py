"""A Llama: packed weights, and a forward pass that leaves the memory of earlier tokens to its caller.

The model computes everything that looks at one token at a time. What looks at other tokens is handed in as
`attend`: the runner rotates, stores and attends over paged K/V there. The operators come from `engine.ops`: the
course's kernels on a GPU, PyTorch's own on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from lessonlib.engine.checkpoint import LlamaConfig, fill_random, load_weights
from lessonlib.engine.cpu.huge_pages import use_huge_pages
from lessonlib.engine.ops import Ops, Packed, choose_ops

Attend = Callable[[int, Tensor], Tensor]
"""(layer, heads) -> attention output `[num_tokens, num_heads, head_dim]`, for all of one step's tokens.

heads: `[num_tokens, num_heads + 2 * num_kv_heads, head_dim]`, queries, then keys, then values, as one matrix gave
them. `attend` rotates queries and keys by their positions, in place.
"""


def rope_frequencies(config: LlamaConfig) -> Tensor:
    """Rotations per position, float32 `[head_dim / 2]` (Su et al., 2021), rescaled as Llama 3 does where asked."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    return _llama3_rescaled(frequencies, config.rope_scaling) if config.rope_scaling else frequencies


def _llama3_rescaled(frequencies: Tensor, scaling: dict[str, Any]) -> Tensor:
    """Slow rotations are slowed by `factor`, fast ones kept, those between blended."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    keep = ((turns - low) / (high - low)).clamp(0, 1)
    return torch.add(keep * frequencies, (1 - keep) * frequencies / scaling["factor"])


def rope_table(config: LlamaConfig, dtype: torch.dtype) -> Tensor:
    """Cosines, then sines, of each position's angles: float32 `[max_positions, head_dim]`.

    They are rounded to the model's `dtype` as Hugging Face does, so that both give the same logits.
    """
    angles = torch.arange(config.max_positions).float()[:, None] * rope_frequencies(config)
    return torch.cat((angles.cos(), angles.sin()), dim=-1).to(dtype).float()


WORTH_HUGE_PAGES = 2**26  # bytes of weights: more than a processor's caches hold
MATRICES = ("qkv", "attention_out", "gate_up", "down")


@dataclass(slots=True)
class LayerWeights:
    """One layer. Matrices are `[out_features, in_features]`; what reads the same input is one matrix."""

    input_norm: Tensor
    qkv: Packed
    attention_out: Packed
    post_attention_norm: Tensor
    gate_up: Packed
    down: Packed


class Llama:
    """Weights and the forward pass of a Llama-architecture model.

    Args:
        folder: where config.json and the safetensors are.
        dtype, device: of the weights and of the computation.
        ops: the fused operators; by default the fastest that the device runs.
        load_format: "auto" reads the safetensors; "dummy" draws random weights and needs config.json alone.

    Attributes:
        weight_bytes: of all matrices that a step reads (the input embedding gives a row a token only).

    Raises `CourseError` where a tensor is missing or has another shape.
    """

    embedding: Tensor
    head: Packed
    norm: Tensor
    layers: list[LayerWeights]

    def __init__(
        self,
        folder: Path,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        ops: Ops | None = None,
        load_format: str = "auto",
    ) -> None:
        self.folder, self.config = folder, LlamaConfig.load(folder)
        self.dtype, self.device = dtype, torch.device(device)
        self.ops = ops or choose_ops("auto", self.device)
        self._allocate()
        if load_format == "dummy":
            fill_random(self.named_weights())
        else:
            load_weights(folder, self.named_weights())
        self.weight_bytes = self._weight_bytes()
        self._pack()
        if self.device.type == "cpu" and self.weight_bytes >= WORTH_HUGE_PAGES:
            use_huge_pages()
        self.cos_sin = rope_table(self.config, dtype).to(self.device)

    def _weight_bytes(self) -> int:
        layers = sum(getattr(layer, name).numel() for layer in self.layers for name in MATRICES)
        return int((layers + self.head.numel()) * self.embedding.element_size())

    def forward(self, token_ids: Tensor, attend: Attend) -> Tensor:
        """Hidden states `[num_tokens, hidden_size]` of integer `token_ids` `[num_tokens]`."""
        config, ops, eps = self.config, self.ops, self.config.rms_norm_eps
        stream = F.embedding(token_ids, self.embedding)
        x = ops.rms_norm(stream, self.layers[0].input_norm, eps=eps)
        next_norms = [layer.input_norm for layer in self.layers[1:]] + [self.norm]
        for index, (layer, next_norm) in enumerate(zip(self.layers, next_norms, strict=True)):
            heads = ops.linear(x, layer.qkv).view(len(x), -1, config.head_dim)
            x = ops.linear(attend(index, heads).flatten(1), layer.attention_out)
            x = ops.rms_norm(x, layer.post_attention_norm, eps=eps, residual=stream)
            x = ops.linear(ops.gated(x, layer.gate_up), layer.down)
            x = ops.rms_norm(x, next_norm, eps=eps, residual=stream)
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary `[num_tokens, vocab_size]`."""
        return self.ops.linear(hidden, self.head)

    def _pack(self) -> None:
        """Bring the matrices into the layout that the operators want. A tied embedding stays as it is."""
        for layer in self.layers:
            for name in MATRICES:
                pack = self.ops.pack_gate_up if name == "gate_up" else self.ops.pack
                setattr(layer, name, pack(getattr(layer, name)))
        self.head = self.ops.pack(self.head)

    def named_weights(self) -> dict[str, Tensor]:
        """Where each tensor of a checkpoint goes, by its name there: views into the joined matrices."""
        config = self.config
        heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        named = {"model.embed_tokens.weight": self.embedding, "model.norm.weight": self.norm}
        if not config.tie_word_embeddings:
            named["lm_head.weight"] = self.head
        for index, layer in enumerate(self.layers):
            query, key, value = layer.qkv.split([heads, kv_heads, kv_heads])
            gate, up = layer.gate_up.chunk(2)
            parts = {
                "self_attn.q_proj": query,
                "self_attn.k_proj": key,
                "self_attn.v_proj": value,
                "self_attn.o_proj": layer.attention_out,
                "mlp.gate_proj": gate,
                "mlp.up_proj": up,
                "mlp.down_proj": layer.down,
                "input_layernorm": layer.input_norm,
                "post_attention_layernorm": layer.post_attention_norm,
            }
            named |= {f"model.layers.{index}.{name}.weight": part for name, part in parts.items()}
        return named

    def _allocate(self) -> None:
        config = self.config
        width, heads = config.hidden_size, config.num_heads * config.head_dim
        qkv = heads + 2 * config.num_kv_heads * config.head_dim

        def empty(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=self.dtype, device=self.device)

        self.embedding, self.norm = empty(config.vocab_size, width), empty(width)
        self.head = self.embedding if config.tie_word_embeddings else empty(config.vocab_size, width)
        self.layers = [
            LayerWeights(
                input_norm=empty(width),
                qkv=empty(qkv, width),
                attention_out=empty(width, heads),
                post_attention_norm=empty(width),
                gate_up=empty(2 * config.intermediate_size, width),
                down=empty(width, config.intermediate_size),
            )
            for _ in range(config.num_layers)
        ]
