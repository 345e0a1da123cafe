"""Checkpoints of every kind, Hugging Face beside: the same logits, or a line that says why not.

Each variant is one change of a small sound folder. `SAME` holds those that must give Hugging Face's logits, `REFUSED`
those that this engine would get wrong, or that contradict themselves, with the words that say so.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_models import one_prompt
from safetensors.torch import load_file, save_file

from lessonlib.engine.checkpoint import resolve
from lessonlib.engine.model import Llama
from lessonlib.engine.runner import ModelRunner
from lessonlib.errors import CourseError

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
HEAD, EMBEDDING, NORM = "lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"

Weights = dict[str, torch.Tensor]
Change = Callable[[Path], None]


@functools.cache
def sound_weights(hidden: int = 16, heads: int = 4, kv_heads: int = 2, head_dim: int = 4) -> Weights:
    """Random weights of the small model, uneven in every tensor."""
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    weights = {EMBEDDING: drawn(32, hidden), HEAD: drawn(32, hidden), NORM: 1 + drawn(hidden)}
    for layer in range(2):
        sizes = {
            "self_attn.q_proj": (heads * head_dim, hidden),
            "self_attn.k_proj": (kv_heads * head_dim, hidden),
            "self_attn.v_proj": (kv_heads * head_dim, hidden),
            "self_attn.o_proj": (hidden, heads * head_dim),
            "mlp.gate_proj": (24, hidden),
            "mlp.up_proj": (24, hidden),
            "mlp.down_proj": (hidden, 24),
        }
        for name, shape in sizes.items():
            weights[f"model.layers.{layer}.{name}.weight"] = drawn(*shape)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{norm}.weight"] = 1 + drawn(hidden)
    return weights


def config(without: tuple[str, ...] = (), **changes: Any) -> Change:
    """config.json with other values, or without some."""

    def change(folder: Path) -> None:
        named = {**CONFIG, **changes}
        (folder / "config.json").write_text(json.dumps({k: v for k, v in named.items() if k not in without}))

    return change


def weights(change: Callable[[Weights], Any], file: str = "model.safetensors") -> Change:
    """The tensors changed, and written to a file."""

    def rewrite(folder: Path) -> None:
        changed = dict(load_file(folder / "model.safetensors"))
        change(changed)
        save_file(changed, folder / file)

    return rewrite


def text(file: str, content: str) -> Change:
    """A file with this text."""
    return lambda folder: (folder / file).write_text(content) and None


def all_of(*changes: Change) -> Change:
    """One change after another."""

    def change(folder: Path) -> None:
        for each in changes:
            each(folder)

    return change


def shapes(heads: int = 4, kv_heads: int = 2, head_dim: int = 4) -> Change:
    """Weights of another shape."""
    return weights(lambda named: named.update(sound_weights(16, heads, kv_heads, head_dim)))


def cast(dtype: torch.dtype) -> Change:
    """Every tensor stored in another dtype."""
    return weights(lambda named: named.update({name: each.to(dtype) for name, each in named.items()}))


def set_value(name: str, value: float) -> Change:
    """One number of one tensor replaced."""

    def change(named: Weights) -> None:
        named[name] = named[name].clone()
        named[name].view(-1)[5] = value

    return weights(change)


def shards(folder: Path) -> None:
    """Two shards and an index in place of the one file."""
    named = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {}
    for half in (0, 1):
        part = dict(list(named.items())[half::2])
        file = f"model-0000{half + 1}-of-00002.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def zeros(file: str) -> Change:
    """A further file with the same names, all zero."""

    def write(folder: Path) -> None:
        save_file({name: torch.zeros_like(each) for name, each in sound_weights().items()}, folder / file)

    return write


def cut(folder: Path) -> None:
    """The file ends before its last tensor does."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-64])


def rename(before: str, after: str) -> Change:
    """A file by another name."""
    return lambda folder: (folder / before).rename(folder / after) and None


def untied(named: Weights) -> None:
    named.pop(HEAD)


def tied(named: Weights) -> None:
    named[HEAD] = named[EMBEDDING].clone()


SAME: dict[str, Change] = {
    "plain": config(),
    "llama3 rope by its newer name": config(rope_parameters={**LLAMA3, "rope_theta": 10_000.0}),
    "llama3 rope by its older name": config(rope_scaling=LLAMA3, rope_theta=50_000.0),
    "default rope, said": config(rope_scaling={"rope_type": "default"}),
    "default rope by the oldest key": config(rope_scaling={"type": "default"}),
    "both names, alike": config(rope_scaling=LLAMA3, rope_parameters=LLAMA3),
    "rope_theta of an older config": config(rope_theta=500.0),
    "rope_theta of a newer config": config(rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
    "rope_scaling null": config(rope_scaling=None),
    "no K/V heads given": all_of(config(without=("num_key_value_heads",)), shapes(kv_heads=4)),
    "K/V heads null": all_of(config(num_key_value_heads=None), shapes(kv_heads=4)),
    "one K/V head": all_of(config(num_key_value_heads=1), shapes(kv_heads=1)),
    "heads wider than the model": all_of(config(head_dim=8), shapes(head_dim=8)),
    "head_dim null": config(head_dim=None),
    "tied, with no head in the file": all_of(config(tie_word_embeddings=True), weights(untied)),
    "tied, with the same head in the file": all_of(config(tie_word_embeddings=True), weights(tied)),
    "another epsilon": config(rms_norm_eps=1e-2),
    "no epsilon given": config(without=("rms_norm_eps",)),
    "no number of positions given": config(without=("max_position_embeddings",)),
    "biases, said to be absent": config(attention_bias=False, mlp_bias=False),
    "options of training": config(attention_dropout=0.5, initializer_range=0.5, use_cache=False),
    "stored in bfloat16": cast(torch.bfloat16),
    "stored in float16": cast(torch.float16),
    "stored in float64": cast(torch.float64),
    "a tensor that nobody reads": weights(
        lambda named: named.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(2)})
    ),
    "two shards and their index": shards,
    "a stale shard beside the index": all_of(shards, zeros("model-00003-of-00003.safetensors")),
    "a backup beside the model": zeros("backup.safetensors"),
    "an optimizer's file beside the model": text("optimizer.bin", "not weights"),
}

REFUSED: dict[str, tuple[Change, str]] = {
    "no config.json": (rename("config.json", "config.bak"), "no config.json"),
    "config.json cut off": (text("config.json", '{"model_type": "lla'), "is not JSON"),
    "config.json a list": (text("config.json", "[]"), "is no object"),
    "another architecture": (config(model_type="gpt2"), "'gpt2' model"),
    "linear rope": (config(rope_scaling={"type": "linear", "factor": 2.0}), "rope type 'linear'"),
    "dynamic rope": (config(rope_scaling={"rope_type": "dynamic", "factor": 2.0}), "rope type 'dynamic'"),
    "yarn rope": (config(rope_parameters={"rope_type": "yarn", "factor": 4.0}), "rope type 'yarn'"),
    "llama3 rope with a field missing": (
        config(rope_scaling={"rope_type": "llama3", "factor": 8.0}),
        "has no low_freq_factor, high_freq_factor, original_max_position_embeddings",
    ),
    "rope_theta null": (config(rope_theta=None), "rope_theta null: it is a number"),
    "two ropes": (
        config(rope_scaling=LLAMA3, rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
        "rope_parameters and another rope_scaling",
    ),
    "a part of each head rotated": (config(partial_rotary_factor=0.5), "partial_rotary_factor 0.5"),
    "attention with biases": (config(attention_bias=True), "attention_bias True"),
    "feed-forward with biases": (config(mlp_bias=True), "mlp_bias True"),
    "another activation": (config(hidden_act="gelu"), "hidden_act 'gelu'"),
    "quantized": (config(quantization_config={"quant_method": "gptq"}), "is quantized"),
    "no layers": (config(num_hidden_layers=0), "num_hidden_layers 0"),
    "a size in words": (config(vocab_size="32"), "vocab_size '32'"),
    "a size that is a fraction": (config(hidden_size=16.5), "hidden_size 16.5"),
    "no size of the vocabulary": (config(without=("vocab_size",)), "no 'vocab_size'"),
    "K/V heads that do not share evenly": (
        config(num_key_value_heads=3),
        "4 attention heads cannot share 3 K/V heads",
    ),
    "heads that do not share the width": (
        config(num_attention_heads=3, num_key_value_heads=3),
        "hidden_size 16 cannot be shared by 3 heads",
    ),
    "no weights": (rename("model.safetensors", "model.bin"), "no *.safetensors weights"),
    "two files and no index": (
        all_of(rename("model.safetensors", "a.safetensors"), zeros("b.safetensors")),
        "a.safetensors, b.safetensors and no model.safetensors.index.json",
    ),
    "an old single file beside the index": (
        all_of(shards, zeros("model.safetensors")),
        "an index and a model.safetensors beside it",
    ),
    "a shard lost": (
        all_of(shards, rename("model-00002-of-00002.safetensors", "lost")),
        "no model-00002-of-00002.safetensors, which its index names",
    ),
    "an index without a map": (
        all_of(shards, text("model.safetensors.index.json", "{}")),
        "is no index",
    ),
    "a file cut off": (cut, "cannot be read"),
    "a tensor missing": (weights(lambda named: named.pop(NORM)), f"no tensor {NORM}"),
    "untied, with no head in the file": (weights(untied), f"no tensor {HEAD}"),
    "tied, with another head in the file": (
        config(tie_word_embeddings=True),
        f"{HEAD} is another than {EMBEDDING}, and config.json says that they are tied",
    ),
    "another shape": (
        weights(lambda named: named.update({NORM: torch.ones(17)})),
        f"{NORM} has shape [17], its config.json wants [16]",
    ),
    "whole numbers for weights": (cast(torch.int8), "holds int8: this engine reads"),
    "a weight that is no number": (set_value(NORM, torch.nan), f"{NORM} holds values that are no numbers"),
    "an infinite weight": (set_value(HEAD, torch.inf), f"{HEAD} holds values that are no numbers"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The sound folder that every variant changes."""
    config()(tmp_path)
    save_file(sound_weights(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path


@pytest.mark.parametrize("name", SAME)
def test_the_logits_are_those_of_hugging_face(name: str, folder: Path) -> None:
    from transformers import LlamaForCausalLM

    SAME[name](folder)
    theirs = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.randint(0, 32, (40,), generator=torch.Generator().manual_seed(1))
    ours = ModelRunner(Llama(resolve(folder)), num_blocks=4, block_size=16)
    with torch.inference_mode():
        expected = theirs(ids[None]).logits[0]
        logits, _ = ours.forward(one_prompt(ids.tolist()))
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_wrong_is_one_line(name: str, folder: Path) -> None:
    change, words = REFUSED[name]
    change(folder)
    with pytest.raises(CourseError, match=re.escape(words)) as raised:
        Llama(resolve(folder))
    assert "\n" not in str(raised.value)
