"""Bytes and tokens of memory, for contenders and for the tables about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lessonlib.engine.checkpoint import LlamaConfig
from lessonlib.engine.frontend.options import DTYPES
from lessonlib.result import LIMITS


def bytes_read(config: LlamaConfig, dtype: str) -> tuple[int, int]:
    """Bytes of the weights that a step reads, and of one token's keys and values.

    Of the input embedding a step reads one row a token, which is left out; the output embedding is read whole.
    """
    size = DTYPES[dtype].itemsize
    heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    attention = config.hidden_size * (2 * heads + 2 * kv_heads)
    layer = attention + 3 * config.hidden_size * config.intermediate_size
    weights = config.num_layers * layer + config.vocab_size * config.hidden_size
    return weights * size, 2 * config.num_layers * kv_heads * size


def missing_settings(settings: Mapping[str, Any]) -> list[str]:
    """Names of what `engine.Engine` asks for in the settings of an engine and of a run, and is not there."""
    needed = [name for name in LIMITS if name != "kv_bytes"]  # the parent computes it
    if settings.get("num_blocks") is None:
        needed.append("cache_tokens")
    return [name for name in needed if name not in settings]


def kv_capacity(settings: Mapping[str, Any]) -> int:
    """Tokens that a contender has K/V memory for: in its blocks, or in the largest cache of its static batches."""
    if settings["num_blocks"] is None:
        return settings["cache_tokens"]
    return settings["num_blocks"] * settings["block_size"]
