"""The work of the ladder: a model that fits the machine, and requests that fit the model."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lessonlib.engine.checkpoint import COURSE_MODEL, resolve
from lessonlib.engine.frontend.options import choose_dtype
from lessonlib.engine.memory import explain_out_of_memory, kv_bytes_per_block
from lessonlib.engine.model import Llama
from lessonlib.errors import CourseError
from lessonlib.simulation.costs import BYTES_PER_VALUE, MODELS, ModelShape
from lessonlib.workload import homework_lengths

LARGEST_FIRST = ("llama-2-7b", "tinyllama-1.1b", "smollm2-135m")
WEIGHTS_SHARE = 0.65  # of the card: the rest is for K/V, graphs and a step's activations
KV_SHARE = 0.6  # of what the weights leave free
FEWEST_SLOTS = 2


@dataclass(frozen=True)
class Load:
    """Requests and the sizes they are run with. Sizes are in tokens unless another unit is named.

    Attributes:
        slots: requests at once under static batching and with reserved memory; memory is sized for them.
        paged_slots: requests at once with memory taken block by block.
        requests: more than either, so that freed slots are refilled.
        output_tokens: lengths of answers, each equally likely.
        shared_tokens: of the beginning that all prompts have in common.
        own_tokens: the fewest and the most that follow it.
        long_tokens: what follows it in every eighth prompt.
        step_tokens: the most that one step computes.
        chunk_tokens: the most of prompts that one step computes, with chunked prefill.
        repeats: rounds over all rungs, if time allows.
        time_limit: seconds for all rounds. A round that would end later is not begun, unless it is the first.
        block_size: tokens a block of K/V.
    """

    slots: int
    paged_slots: int
    requests: int
    output_tokens: tuple[int, ...]
    shared_tokens: int
    own_tokens: tuple[int, int]
    long_tokens: int
    step_tokens: int
    chunk_tokens: int
    repeats: int = 3
    block_size: int = 16
    time_limit: float = 600.0

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt and answer together."""
        return self.shared_tokens + max(self.long_tokens, self.own_tokens[1]) + max(self.output_tokens)

    @property
    def num_blocks(self) -> int:
        """Blocks for the longest sequence in each of `slots`, and the null block."""
        return self.slots * -(-self.longest // self.block_size) + 1


def cpu_load() -> Load:
    """Two to three minutes of SmolLM2 on two cores: two or three rounds on an idle machine, one on a busy one."""
    return Load(4, 12, 16, (8, 24, 72), 48, (8, 24), 256, step_tokens=2048, chunk_tokens=64, time_limit=168)


def gpu_load(slots: int = 32) -> Load:
    """Llama-2-7B shapes on an H100, where three rounds took five minutes."""
    return Load(
        slots, 2 * slots, 3 * slots, (16, 64, 256), 128, (16, 48), 1024, step_tokens=8192, chunk_tokens=512
    )


def load_for(llama: Llama) -> Load:
    """The load for a model's device: on a GPU with as many slots, up to 32, as fit in memory beside the weights.

    Raises `CourseError` if fewer than two fit.
    """
    if llama.device.type == "cpu":
        return cpu_load()
    free = torch.cuda.mem_get_info(llama.device)[0]
    largest = gpu_load()
    sequence = kv_bytes_per_block(llama, 1) * largest.longest
    slots = min(largest.slots, int(KV_SHARE * free / sequence))
    if slots < FEWEST_SLOTS:
        raise CourseError(
            f"the card has {free / 2**30:.1f} GiB left beside the weights, too little for {FEWEST_SLOTS} "
            f"sequences of {largest.longest} tokens: choose a smaller model with --model"
        )
    return gpu_load(slots)


def load_model(model: str | None, device: torch.device) -> tuple[Llama, str]:
    """The model and its name in the record; see `ladder.bench_engine`."""
    chosen = model or (COURSE_MODEL if device.type == "cpu" else _largest_that_fits(device))
    dtype = choose_dtype("auto", device)
    with explain_out_of_memory("loading the model"), torch.inference_mode():
        if chosen in MODELS:
            return _dummy(MODELS[chosen], dtype, device), f"{chosen} shapes, random weights"
        return Llama(resolve(chosen), dtype, device), Path(chosen).name


def _largest_that_fits(device: torch.device) -> str:
    total = torch.cuda.get_device_properties(device).total_memory
    fitting = [
        name for name in LARGEST_FIRST if MODELS[name].parameters * BYTES_PER_VALUE <= WEIGHTS_SHARE * total
    ]
    return (fitting or [LARGEST_FIRST[-1]])[0]


def _dummy(shape: ModelShape, dtype: torch.dtype, device: torch.device) -> Llama:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config_json(shape)), encoding="utf-8")
        return Llama(Path(folder), dtype, device, load_format="dummy")


def config_json(shape: ModelShape, max_positions: int = 4096) -> dict[str, str | int | float | bool]:
    """The config.json of a shape, enough for random weights."""
    return {
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": max_positions,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": shape.tied_embeddings,
    }


@dataclass(frozen=True)
class Requests:
    """Prompts as token ids, and the output tokens of each. All wait at the start."""

    prompts: list[list[int]]
    output_tokens: list[int]

    @classmethod
    def draw(cls, load: Load, vocabulary: int, seed: int) -> Requests:
        """Draw random ids: the cost of a step does not depend on them."""
        rng = np.random.default_rng(seed)
        shared = np.random.default_rng(0).integers(0, vocabulary, load.shared_tokens).tolist()
        low, high = load.own_tokens
        own = rng.integers(low, high + 1, load.requests)
        own[4::8] = load.long_tokens
        prompts = [shared + rng.integers(0, vocabulary, count).tolist() for count in own]
        return cls(prompts, homework_lengths(load.requests, seed, load.output_tokens).tolist())
