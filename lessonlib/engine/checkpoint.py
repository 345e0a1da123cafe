"""From a name to weights: a Llama-architecture folder, a hub name, or the course's own model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from lessonlib.errors import CourseError
from lessonlib.fetch import MODEL_NAME, fetch_model, is_present, model_folder

COURSE_MODEL = "smollm2"
LOAD_FORMATS = ("auto", "dummy")
OF_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
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
            max_positions=data["max_position_embeddings"],
            rms_norm_eps=data["rms_norm_eps"],
            rope_theta=rope.get("rope_theta") or data.get("rope_theta") or 10_000.0,
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
    for option, expected in (("attention_bias", False), ("mlp_bias", False), ("hidden_act", "silu")):
        if config.get(option, expected) != expected:
            raise CourseError(
                f"{folder} has {option} {config[option]!r}, this engine runs {expected!r}: use another model"
            )
    for name in SIZES:
        if name in config and not (isinstance(config[name], int) and config[name] > 0):
            raise CourseError(f"{folder} has {name} {config[name]!r}: it is a whole number from 1")
    if config.get("quantization_config"):
        raise CourseError(f"{folder} is quantized: this engine runs fp32, bf16 and fp16 weights")


def _eos_token_ids(folder: Path, config: dict[str, Any]) -> tuple[int, ...]:
    generation = folder / "generation_config.json"
    chosen = json.loads(generation.read_text()).get("eos_token_id") if generation.is_file() else None
    ids = chosen if chosen is not None else config.get("eos_token_id")
    if ids is None:
        return ()
    return tuple(ids) if isinstance(ids, list) else (ids,)


def resolve(model: str | Path, load_format: str = "auto") -> Path:
    """The local folder of a model.

    `model` is a folder, the course's own model ("smollm2", fetched where it is missing), or a hub name such
    as "org/name", downloaded by huggingface_hub. With `load_format` "dummy" a folder with config.json is
    enough. Raises `CourseError` where there are no weights.
    """
    if load_format not in LOAD_FORMATS:
        raise CourseError(f"load_format {load_format!r}: choose one of {', '.join(LOAD_FORMATS)}")
    if str(model).lower() in (COURSE_MODEL, MODEL_NAME.lower()):
        return model_folder() if is_present(model_folder()) else fetch_model()
    folder = Path(model).expanduser()
    if not folder.exists():
        folder = _from_hub(str(model))
    if load_format == "auto" and not any(folder.glob("*.safetensors")):
        raise CourseError(
            f"{folder} has no *.safetensors weights: give a model folder, a hub name, or {COURSE_MODEL!r}"
        )
    return folder


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.jinja", "tokenizer*"])
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CourseError(
            f"no folder and no reachable hub model {name!r} ({reason}): give a model folder"
        ) from error


def load_weights(folder: Path, places: Mapping[str, torch.Tensor]) -> None:
    """Copy the folder's safetensors, shard by shard, to where each tensor belongs.

    Args:
        places: a tensor to fill for each name that must be there; it gives shape, dtype and device.

    Raises `CourseError` for files that cannot all be the model's, a missing tensor, another shape or an unreadable
    shard.
    """
    missing = dict(places)
    shards = weight_files(folder)
    bar = tqdm(total=len(places), desc="weights", unit="tensor", leave=False, delay=2)
    with bar:
        for shard in shards:
            try:
                with safe_open(shard, framework="pt") as file:
                    for name in missing.keys() & set(file.keys()):
                        _fill(missing.pop(name), file.get_tensor(name), name, shard)
                        bar.update()
            except SafetensorError as error:
                raise CourseError(f"{shard} cannot be read ({error}): fetch the model again") from error
    if missing:
        raise CourseError(
            f"{folder} has no tensor {next(iter(missing))} ({len(missing)} missing): fetch the model again"
        )


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the model: those that its index names, else model.safetensors, else the only one there is.

    Raises `CourseError` where two of these say different things, or a file that the index names is missing.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    there = sorted(folder.glob("*.safetensors"))
    if index.is_file():
        try:
            named = sorted({folder / name for name in json.loads(index.read_text())["weight_map"].values()})
        except (json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
            raise CourseError(f"{index} is no index ({error!r}): fetch the model again") from error
        if single in there and single not in named:
            raise CourseError(
                f"{folder} has an index and a model.safetensors beside it: move one of them away"
            )
        if lost := [path.name for path in named if path not in there]:
            raise CourseError(
                f"{folder} has no {', '.join(lost)}, which its index names: fetch the model again"
            )
        return named
    if single in there:
        return [single]
    if len(there) > 1:
        names = ", ".join(path.name for path in there)
        raise CourseError(
            f"{folder} has {names} and no model.safetensors.index.json: leave the model's own file, or add its index"
        )
    return there


def _fill(place: torch.Tensor, tensor: torch.Tensor, name: str, shard: Path) -> None:
    if tensor.shape != place.shape:
        raise CourseError(
            f"{shard}: {name} has shape {list(tensor.shape)}, its config.json wants {list(place.shape)}: "
            "fetch the model again"
        )
    if not tensor.sum(dtype=torch.float32).isfinite():
        raise CourseError(f"{shard}: {name} holds values that are no numbers: fetch the model again")
    place.copy_(tensor)


def fill_random(places: Mapping[str, torch.Tensor]) -> None:
    """Draw weights as Llama is initialized: matrices from N(0, 0.02), norms of ones. The same on each call."""
    device = next(iter(places.values())).device
    generator = torch.Generator(device).manual_seed(0)
    for place in places.values():
        if place.dim() == 1:
            place.fill_(1)
        else:
            place.normal_(0, 0.02, generator=generator)
