"""Compiles the kernels of the course for cards that need not be there, and says what each would take of its card.

    python tests/offline_kernels.py --work every 9.0        # every kernel of the course, for Hopper
    python tests/offline_kernels.py --work models 8.6 8.9   # what the engine launches for three models
    python tests/offline_kernels.py --work large 7.5        # the settings that ask for most

Triton's interpreter lets pass what its compiler refuses. So the wrappers are called here with tensors that claim to
lie on a card and hold nothing, and what they would launch is compiled to machine code instead. Each line of the output
is JSON: card, kernel, settings, shared (bytes), threads, registers (null without cuobjdump), stack (bytes a thread).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

os.environ["TRITON_INTERPRET"] = "0"

import torch
import triton
from cards import CARDS
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction, MockTensor

from kernels import attention, cache, cards, ladder, launch, linear, pointwise, sampling, validate

NUM_BLOCKS, BLOCK = 8, 16
META = torch.device("meta")
SETTINGS = ("HEAD_DIM", "GROUP", "TOKENS", "ROWS", "TILE", "SPLIT", "PADDED", "num_warps", "num_stages")
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
USAGE = re.compile(r"(REG|STACK):(\d+)")


class Model(NamedTuple):
    """The sizes of a Llama-like model."""

    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    intermediate: int
    vocabulary: int


MODELS = {
    "SmolLM2-135M": Model(9, 3, 64, 576, 1536, 49_152),
    "Llama-2-7B": Model(32, 32, 128, 4096, 11_008, 32_000),
    "Llama-3-8B": Model(32, 8, 128, 4096, 14_336, 128_256),
}


class Compiler:
    """Stands in for a card: compiles what would be launched on it, each thing once, and prints what it takes."""

    def __init__(self, capability: str, limits_of: str) -> None:
        self.capability, limits = capability, CARDS[limits_of]
        major, minor = map(int, capability.split("."))
        target = GPUTarget("cuda", 10 * major + minor, 32)
        driver.set_active(
            SimpleNamespace(
                get_current_device=lambda: list(CARDS).index(capability),
                get_current_stream=lambda device: 0,
                get_current_target=lambda: target,
            )
        )
        card = SimpleNamespace(
            major=major,
            minor=minor,
            multi_processor_count=limits.processors,
            shared_memory_per_block_optin=limits.shared_bytes,
        )
        JITFunction.__getitem__ = lambda kernel, grid: (
            lambda *arguments, **options: self.compile(kernel, grid, arguments, options)
        )
        torch.cuda.is_available = lambda: True
        torch.cuda.get_device_properties = lambda device=None: card
        cards.card_of.cache_clear()
        launch.overlapping.cache_clear()
        for module in (
            attention,
            cache,
            linear,
            pointwise,
            sampling,
            validate,
        ):  # whose tensors would have to lie there
            module.check_tensor = lambda *due: None
        self._seen: set[str] = set()

    def compile(self, kernel: JITFunction, grid: Any, arguments: tuple, options: dict[str, Any]) -> None:
        stand_ins = [MockTensor(each.dtype) if isinstance(each, torch.Tensor) else each for each in arguments]
        done = kernel.run(*stand_ins, grid=grid, warmup=True, **options)
        if done.hash in self._seen:
            return
        self._seen.add(done.hash)
        dtypes = [
            str(each.dtype).removeprefix("torch.") for each in arguments if isinstance(each, torch.Tensor)
        ]
        line = {
            "card": self.capability,
            "kernel": kernel.__name__,
            "settings": {"dtype": dtypes[0]} | {name: options[name] for name in SETTINGS if name in options},
            "shared": done.metadata.shared,
            "threads": 32 * done.metadata.num_warps,
            **registers(done.asm["cubin"]),
        }
        print(json.dumps(line), flush=True)


def registers(cubin: bytes) -> dict[str, int | None]:
    """Registers and bytes of stack that each thread takes, as the assembler has put it into the kernel."""
    tool = shutil.which("cuobjdump", path=os.pathsep.join([str(TOOLS), os.environ.get("PATH", "")]))
    if tool is None:
        return {"registers": None, "stack": None}
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [tool, "--dump-resource-usage", file.name]
        used = dict(USAGE.findall(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    return {"registers": int(used["REG"]), "stack": int(used["STACK"])}


def empty(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device=META)


def counts(*shape: int) -> torch.Tensor:
    return empty(*shape, dtype=torch.int32)


def attend(
    heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype, decodes: tuple[int, ...] = (0, 4)
) -> None:
    """Four sequences of a token each, as prompts (0 decodes) and as decodes."""
    query = empty(4, heads, head_dim, dtype=dtype)
    caches = [empty(NUM_BLOCKS, BLOCK, kv_heads, head_dim, dtype=dtype) for _ in range(2)]
    workspace = attention.make_workspace(heads, kv_heads, head_dim, dtype, META)
    inputs = (counts(4, 2), counts(4), counts(5))
    for num_decodes in decodes:
        attention.paged_attention(
            query, *caches, *inputs, scale=1.0, num_decodes=num_decodes, workspace=workspace
        )


def rotate_and_store(heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype) -> None:
    query, key, value = (empty(4, count, head_dim, dtype=dtype) for count in (heads, kv_heads, kv_heads))
    caches = [empty(NUM_BLOCKS, BLOCK, kv_heads, head_dim, dtype=dtype) for _ in range(2)]
    angles = empty(64, head_dim, dtype=torch.float32)
    cache.write_kv(key, value, *caches, counts(4))
    pointwise.rotary_write_kv(query, key, value, counts(4), angles, *caches, counts(4))


def between(hidden: int, intermediate: int, dtype: torch.dtype) -> None:
    """What happens between the matrix products of a layer."""
    x = empty(4, hidden, dtype=dtype)
    pointwise.rms_norm(x, empty(hidden, dtype=dtype), eps=1e-5)
    pointwise.rms_norm(x, empty(hidden, dtype=dtype), eps=1e-5, residual=empty(4, hidden, dtype=dtype))
    pointwise.silu_and_mul(empty(4, 2 * intermediate, dtype=dtype))


def multiply(tokens: int, num_rows: int, width: int, dtype: torch.dtype) -> None:
    linear.skinny_linear(empty(tokens, width, dtype=dtype), empty(num_rows, width, dtype=dtype))


def draw(vocabulary: int, dtype: torch.dtype) -> None:
    """A step's tokens, with cuts and without."""
    columns = [empty(4, dtype=dtype) for dtype in (torch.int64, torch.float64, torch.int64, torch.float64)]
    for has_cuts in (False, True):
        sampling.sample(empty(4, vocabulary, dtype=dtype), *columns, has_cuts=has_cuts)


def every(half: torch.dtype) -> None:
    """Every kernel of the course, the ladder's rungs too, in several shapes."""
    for dtype, head_dim in ((half, 64), (half, 128), (torch.float32, 64)):
        rotate_and_store(8, 2, head_dim, dtype)
        attend(8, 2, head_dim, dtype)
        query, keys = empty(4, 8, head_dim, dtype=dtype), empty(9, head_dim, dtype=dtype)
        caches = [empty(NUM_BLOCKS, BLOCK, 2, head_dim, dtype=dtype) for _ in range(2)]
        ladder.tiled(keys[0], keys, keys, scale=1.0)
        ladder.ragged(query, *caches, counts(4, 2), counts(4), scale=1.0)
        ladder.grouped(query, *caches, counts(4, 2), counts(4), scale=1.0)
    for dtype in (half, torch.float32):
        draw(32_000, dtype)
    attend(8, 8, 128, half)
    attend(8, 2, 80, torch.float16)
    between(4096, 11_008, half)
    for tokens, rows, width in itertools.product((1, 2, 4, 16, 32), (4096, 22_016), (4096, 11_008)):
        multiply(tokens, rows, width, half)


def models(half: torch.dtype) -> None:
    """What the engine may launch for each model, in 16 and in 32 bits, and attention for every size of head."""
    for model, dtype in itertools.product(MODELS.values(), (half, torch.float32)):
        heads = (model.heads, model.kv_heads, model.head_dim)
        rotate_and_store(*heads, dtype)
        attend(*heads, dtype)
        between(model.hidden, model.intermediate, dtype)
        draw(model.vocabulary, dtype)
        attended = model.heads * model.head_dim
        matrices = [
            ((model.heads + 2 * model.kv_heads) * model.head_dim, model.hidden),
            (model.hidden, attended),
            (2 * model.intermediate, model.hidden),
            (model.hidden, model.intermediate),
            (model.vocabulary, model.hidden),
        ]
        for tokens, (num_rows, width) in itertools.product((1, 2, 4, 16, 32, 64), matrices):
            multiply(tokens, num_rows, width, dtype)
    for head_dim, dtype in itertools.product(validate.HEAD_DIMS, (half, torch.float32)):
        attend(16, 8, head_dim, dtype)


def large(half: torch.dtype) -> None:
    """The settings that ask for most: prompts in large heads, a product for many tokens; and decodes of Llama-3-8B."""
    attend(32, 8, 128, half)
    attend(16, 8, 256, half, decodes=(0,))
    multiply(32, 6144, 4096, half)
    multiply(64, 28_672, 4096, half)


WORK: dict[str, Callable[[torch.dtype], None]] = {"every": every, "models": models, "large": large}


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile the kernels for cards that need not be there.")
    parser.add_argument("cards", nargs="+", choices=CARDS, metavar="CAPABILITY")
    parser.add_argument("--work", choices=WORK, default="every")
    parser.add_argument("--limits-of", choices=CARDS, help="let the kernels think that the card is this one")
    chosen = parser.parse_args()
    for capability in chosen.cards:
        Compiler(capability, chosen.limits_of or capability)
        WORK[chosen.work](torch.bfloat16 if CARDS[capability].has_bfloat16 else torch.float16)


if __name__ == "__main__":
    main()
