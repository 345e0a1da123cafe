"""A model's files: found by a folder, a hub name or the course's own name, and read into tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from lessonlib.errors import CourseError
from lessonlib.fetch import MODEL_NAME, fetch_model, is_present, model_folder

COURSE_MODEL = "smollm2"
LOAD_FORMATS = ("auto", "dummy")
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


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


def load_weights(folder: Path, targets: Mapping[str, torch.Tensor]) -> None:
    """Copy the folder's safetensors, shard by shard, to where each tensor belongs.

    The head of a tied model is its embedding; where the file has a head as well, it must be the same.

    Args:
        targets: a tensor to fill for each name that must be there; it gives shape, dtype and device.

    Raises `CourseError` for files that cannot all be the model's, a missing tensor, another shape or an unreadable
    shard.
    """
    missing = dict(targets)
    heads: list[torch.Tensor] = []  # of a model that should have none of its own
    shards = weight_files(folder)
    bar = tqdm(total=len(targets), desc="weights", unit="tensor", leave=False, delay=2)
    with bar:
        for shard in shards:
            try:
                with safe_open(shard, framework="pt") as file:
                    for name in missing.keys() & set(file.keys()):
                        _fill(missing.pop(name), file.get_tensor(name), name, shard)
                        bar.update()
                    if EMBEDDING in targets and HEAD not in targets and HEAD in file.keys():  # noqa: SIM118
                        heads.append(file.get_tensor(HEAD))
            except SafetensorError as error:
                raise CourseError(f"{shard} cannot be read ({error}): fetch the model again") from error
    if missing:
        raise CourseError(
            f"{folder} has no tensor {next(iter(missing))} ({len(missing)} missing): fetch the model again"
        )
    if any(not head.to(targets[EMBEDDING]).equal(targets[EMBEDDING]) for head in heads):
        raise CourseError(
            f"{folder}: {HEAD} is another than {EMBEDDING}, and config.json says that they are tied: "
            "fetch the model again"
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


def _fill(target: torch.Tensor, tensor: torch.Tensor, name: str, shard: Path) -> None:
    if tensor.shape != target.shape:
        raise CourseError(
            f"{shard}: {name} has shape {list(tensor.shape)}, its config.json wants {list(target.shape)}: "
            "fetch the model again"
        )
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise CourseError(f"{shard}: {name} holds {kind}: this engine reads float32, bfloat16 and float16")
    target.copy_(tensor)
    if not target.sum(dtype=torch.float32).isfinite():  # on a card in no time, for gigabytes of them
        raise CourseError(
            f"{shard}: {name} holds values that are no numbers in {target.dtype}: fetch it again"
        )


def fill_random(targets: Mapping[str, torch.Tensor]) -> None:
    """Draw weights as Llama is initialized: matrices from N(0, 0.02), norms of ones. The same on each call."""
    device = next(iter(targets.values())).device
    generator = torch.Generator(device).manual_seed(0)
    for target in targets.values():
        if target.dim() == 1:
            target.fill_(1)
        else:
            target.normal_(0, 0.02, generator=generator)
