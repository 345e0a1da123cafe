"""Compiles the kernels of the course for a card that need not be there, and prints their names.

    python tests/offline_kernels.py        # for Hopper
    python tests/offline_kernels.py 80     # for compute capability 8.0

Triton's interpreter lets pass what its compiler refuses. So the wrappers are called here with tensors that claim to
lie on a card and hold nothing, and what they would launch is compiled to machine code instead.
"""

from __future__ import annotations

import itertools
import os
import sys
from types import SimpleNamespace
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction, MockTensor

from kernels import attention, cache, ladder, linear, pointwise, validate

PROCESSORS = 132  # of an H100; how many there are changes no code
HEADS, NUM_BLOCKS, BLOCK = 8, 8, 16
capability = int(sys.argv[1]) if len(sys.argv) > 1 else 90
compiled: set[str] = set()


def compile_instead(kernel: JITFunction, grid: Any) -> Any:
    def run(*arguments: Any, **options: Any) -> None:
        told = [MockTensor(each.dtype) if isinstance(each, torch.Tensor) else each for each in arguments]
        done = kernel.run(*told, grid=grid, warmup=True, **options)
        compiled.add(f"{kernel.__name__} {done.hash}")

    return run


def claim_a_card() -> None:
    target = GPUTarget("cuda", capability, 32)
    driver.set_active(
        SimpleNamespace(
            get_current_device=lambda: 0,
            get_current_stream=lambda device: 0,
            get_current_target=lambda: target,
        )
    )
    JITFunction.__getitem__ = compile_instead
    torch.cuda.is_available = lambda: True
    torch.cuda.get_device_capability = lambda device=None: divmod(capability, 10)
    card = SimpleNamespace(multi_processor_count=PROCESSORS)
    torch.cuda.get_device_properties = lambda device=None: card
    for module in (attention, cache, linear, pointwise, validate):  # whose tensors would have to lie there
        module.check_tensor = lambda *due: None


def call_all(dtype: torch.dtype, head_dim: int, kv_heads: int) -> None:
    nowhere = torch.device("meta")

    def empty(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=nowhere)

    def counts(*shape: int) -> torch.Tensor:
        return empty(*shape, dtype=torch.int32)

    caches = [empty(NUM_BLOCKS, BLOCK, kv_heads, head_dim) for _ in range(2)]
    query, key, value = (empty(4, heads, head_dim) for heads in (HEADS, kv_heads, kv_heads))
    cache.write_kv(key, value, *caches, counts(4))
    angles = empty(64, head_dim, dtype=torch.float32)
    pointwise.rotary_write_kv(query, key, value, counts(4), angles, *caches, counts(4))
    room = attention.make_workspace(HEADS, kv_heads, head_dim, dtype, nowhere)
    for decodes in (0, 4):
        attention.paged_attention(
            query, *caches, counts(4, 2), counts(4), counts(5), scale=1.0, num_decodes=decodes, workspace=room
        )
    if head_dim == 80:
        return  # the ladder's rungs want a power of two
    ladder.tiled(empty(head_dim), empty(9, head_dim), empty(9, head_dim), scale=1.0)
    ladder.ragged(query, *caches, counts(4, 2), counts(4), scale=1.0)
    ladder.grouped(query, *caches, counts(4, 2), counts(4), scale=1.0)
    if head_dim == 128:
        x = empty(4, 4096)
        pointwise.rms_norm(x, empty(4096), eps=1e-5)
        pointwise.rms_norm(x, empty(4096), eps=1e-5, residual=empty(4, 4096))
        pointwise.silu_and_mul(empty(4, 22016))
        for tokens, rows, width in itertools.product((1, 2, 4, 16, 32), (4096, 22016), (4096, 11008)):
            linear.skinny_linear(empty(tokens, width), empty(rows, width))


if __name__ == "__main__":
    claim_a_card()
    for dtype, head_dim in itertools.product((torch.bfloat16, torch.float32), (64, 128)):
        call_all(dtype, head_dim, 2)
    call_all(torch.bfloat16, 128, HEADS)
    call_all(torch.float16, 80, 2)
    for name in sorted(compiled):
        print(name)
    print(f"{len(compiled)} kernels compiled for compute capability {capability / 10}")
