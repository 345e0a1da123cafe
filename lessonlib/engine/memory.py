"""How much K/V memory there is: what a card or a machine has left beside the model and its largest step."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

import psutil
import torch

from lessonlib.engine.inputs import StepInputs, StepShape
from lessonlib.engine.model import Llama
from lessonlib.engine.runner import ModelRunner
from lessonlib.errors import CourseError

CPU_SHARE = 0.25  # of the memory that is free: a laptop has other work


def kv_bytes_per_block(model: Llama, block_size: int) -> int:
    """Bytes of a block's keys and values in all layers."""
    config = model.config
    values = 2 * config.num_layers * block_size * config.num_kv_heads * config.head_dim
    return values * model.embedding.element_size()


def num_blocks_that_fit(
    model: Llama,
    block_size: int,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    max_model_len: int,
    gpu_memory_utilization: float,
) -> int:
    """Blocks for every slot's longest sequence, or as many as memory holds; the null block included.

    On a GPU the largest step is run once to see what it needs; what is left of `gpu_memory_utilization` of the
    card is for K/V. On a CPU a quarter of the free memory is.

    Raises `CourseError` where not even one sequence of two blocks fits.
    """
    most = max_num_seqs * -(-max_model_len // block_size) + 1
    if model.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(model.device)
        step = _largest_step(model, block_size, max_num_batched_tokens, max_num_seqs)
        room = free - (1 - gpu_memory_utilization) * total - step
    else:
        room = CPU_SHARE * psutil.virtual_memory().available
    blocks = min(most, int(room // kv_bytes_per_block(model, block_size)))
    if blocks < 3:
        raise CourseError(
            f"no room for K/V beside the model ({room / 2**30:.1f} GiB left of gpu_memory_utilization "
            f"{gpu_memory_utilization}): take a smaller model or a smaller max_num_batched_tokens"
        )
    return blocks


def check_blocks(model: Llama, num_blocks: int, block_size: int) -> int:
    """`num_blocks` itself. Raises `CourseError` where their K/V is more than the memory that is free."""
    on_card = model.device.type == "cuda"
    free = torch.cuda.mem_get_info(model.device)[0] if on_card else psutil.virtual_memory().available
    wanted = num_blocks * kv_bytes_per_block(model, block_size)
    if wanted > free:
        raise CourseError(
            f"num_blocks {num_blocks} of block_size {block_size} are {wanted / 2**30:,.1f} GiB of K/V, "
            f"{free / 2**30:,.1f} GiB are free: give fewer blocks"
        )
    return num_blocks


def _largest_step(model: Llama, block_size: int, num_tokens: int, num_seqs: int) -> float:
    """Bytes that the activations of a step of `num_tokens` prompt tokens take at their peak."""
    runner, device = ModelRunner(model, 2, block_size, num_seqs, num_tokens), model.device
    inputs = runner.load(StepInputs.of([], block_size), StepShape(0, num_seqs, num_tokens))
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    with torch.inference_mode():
        runner.forward(inputs)
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - before
    del runner, inputs
    release_memory()
    return 1.1 * peak  # what the allocator loses between pieces


def release_memory() -> None:
    """Give memory that no tensor holds back to the card."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def explain_out_of_memory(doing: str) -> Iterator[None]:
    """Say in one line that memory ran out, and give it back."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        reason = str(error).splitlines()[0]
    else:
        return
    release_memory()
    raise CourseError(
        f"out of memory while {doing} ({reason}): take a smaller model, fewer max_num_seqs or "
        "max_num_batched_tokens, or free the card (nvidia-smi shows who holds it)"
    )
