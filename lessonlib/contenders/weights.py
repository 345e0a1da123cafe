"""Random weights in files, so that every contender computes with the same: ``python -m lessonlib.contenders.weights``.

A process of its own draws them: on a card, whose memory must be free again before a contender starts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from lessonlib.engine.model import Llama
from lessonlib.engine.ops import choose_ops
from lessonlib.errors import CourseError

SHARD_BYTES = 4 * 2**30


def write_weights(folder: Path, dtype: str, device: str) -> None:
    """Write random weights beside the folder's config.json, in a process of its own.

    The same numbers on each call with the same dtype on the same kind of device. Raises `CourseError` where there is
    no room for them.
    """
    command = [sys.executable, "-m", "lessonlib.contenders.weights", str(folder), dtype, device]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CourseError(
            f"random weights cannot be written to {folder}, set TMPDIR to a larger disk: {reason}"
        )


def main(folder: Path, dtype: str, device: str) -> None:
    """Draw the weights and write them in shards with an index."""
    plain = choose_ops("reference", torch.device(device))  # whose matrices are laid out as in a checkpoint
    llama = Llama(folder, getattr(torch, dtype), device, plain, load_format="dummy")
    shard: dict[str, torch.Tensor] = {}
    files: dict[str, str] = {}

    def flush() -> None:
        name = f"model-{len(set(files.values())) + 1:05}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        files.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, tensor in llama.named_weights().items():
        if sum(each.nbytes for each in shard.values()) + tensor.nbytes > SHARD_BYTES:
            flush()
        shard[name] = tensor.to("cpu", copy=True)
    flush()
    index = {"metadata": {}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
