"""The shape of a model, from its config.json; what this engine would get wrong is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lessonlib.errors import CourseError

OF_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
ONLY = {"attention_bias": False, "mlp_bias": False, "hidden_act": "silu", "partial_rotary_factor": 1.0}
SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    "max_position_embeddings",
)


@dataclass(frozen=True)
class LlamaConfig:
    """The shape of a Llama-architecture model, from its config.json.

    `rope_scaling` holds the config's own dictionary ({} where positions are not rescaled).
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_positions: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: dict[str, Any]
    tie_word_embeddings: bool
    eos_token_ids: tuple[int, ...]

    @classmethod
    def load(cls, folder: Path) -> LlamaConfig:
        """Read config.json. Raises `CourseError` for another architecture or an unreadable file."""
        path = folder / "config.json"
        if not path.is_file():
            raise CourseError(
                f"{folder} has no config.json: give a model folder with config.json and *.safetensors"
            )
        try:
            data = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise CourseError(f"{path} is not JSON ({error}): fetch the model again") from error
        if not isinstance(data, dict):
            raise CourseError(f"{path} is no object but {type(data).__name__}: fetch the model again")
        if data.get("model_type") != "llama":
            raise CourseError(
                f"{folder} is a {data.get('model_type')!r} model: this engine runs the Llama architecture"
            )
        _refuse_variants(folder, data)
        try:
            return cls._from_json(data, _eos_token_ids(folder, data))
        except KeyError as error:
            raise CourseError(f"{path} has no {error}: fetch the model again") from error

    @classmethod
    def _from_json(cls, data: dict[str, Any], eos_token_ids: tuple[int, ...]) -> LlamaConfig:
        rope = _rope(data)
        heads = data["num_attention_heads"]
        return cls(
            vocab_size=data["vocab_size"],
            hidden_size=data["hidden_size"],
            intermediate_size=data["intermediate_size"],
            num_layers=data["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=data.get("num_key_value_heads") or heads,
            head_dim=data.get("head_dim") or data["hidden_size"] // heads,
            max_positions=data.get("max_position_embeddings", 2_048),  # these three as Hugging Face has them
            rms_norm_eps=data.get("rms_norm_eps", 1e-6),
            rope_theta=rope.get("rope_theta") or data.get("rope_theta", 10_000.0),
            rope_scaling=rope if "factor" in rope else {},
            tie_word_embeddings=data.get("tie_word_embeddings", False),
            eos_token_ids=eos_token_ids,
        )


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """The rotation's parameters, of either name. Raises `CourseError` for those that this engine would get wrong."""
    named, older = config.get("rope_parameters"), config.get("rope_scaling")
    if named and older and named != older:
        raise CourseError("config.json has rope_parameters and another rope_scaling: take one of them out")
    rope = dict(named or older or {})
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise CourseError(f"rope type {kind!r}: this engine knows default and llama3")
    if kind == "llama3" and (lost := [name for name in OF_LLAMA3 if not rope.get(name)]):
        raise CourseError(f"the llama3 rope of config.json has no {', '.join(lost)}: fetch the model again")
    return rope if kind == "llama3" else {"rope_theta": rope.get("rope_theta")}


def _refuse_variants(folder: Path, config: dict[str, Any]) -> None:
    """Options of the architecture that would give silently wrong answers here."""
    for option, expected in ONLY.items():
        if config.get(option, expected) != expected:
            raise CourseError(
                f"{folder} has {option} {config[option]!r}, this engine runs {expected!r}: use another model"
            )
    for name in SIZES:
        if name in config and not (isinstance(config[name], int) and config[name] > 0):
            raise CourseError(f"{folder} has {name} {config[name]!r}: it is a whole number from 1")
    if config.get("rope_theta", 1.0) is None:
        raise CourseError(
            f"{folder} has rope_theta null: it is a number, 10000 where its model card has none"
        )
    heads, kv_heads = config.get("num_attention_heads", 1), config.get("num_key_value_heads")
    if kv_heads and heads % kv_heads:
        raise CourseError(
            f"{folder}: {heads} attention heads cannot share {kv_heads} K/V heads: fetch the model again"
        )
    width = config.get("hidden_size", heads)
    if not config.get("head_dim") and width % heads:
        raise CourseError(
            f"{folder}: hidden_size {width} cannot be shared by {heads} heads: fetch the model again"
        )
    if config.get("quantization_config"):
        raise CourseError(f"{folder} is quantized: this engine runs fp32, bf16 and fp16 weights")


def _eos_token_ids(folder: Path, config: dict[str, Any]) -> tuple[int, ...]:
    generation = folder / "generation_config.json"
    chosen = json.loads(generation.read_text()).get("eos_token_id") if generation.is_file() else None
    ids = chosen if chosen is not None else config.get("eos_token_id")
    if ids is None:
        return ()
    return tuple(ids) if isinstance(ids, list) else (ids,)
