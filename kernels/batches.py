"""Random paged batches to try a kernel on: permuted blocks, and NaN in all that must not be read."""

from typing import Any

import torch

NO_BLOCK = 10**6  # larger than any block id: fills the table beyond a sequence's length


def make_batch(
    seqs: list[tuple[int, int]],
    heads: tuple[int, int] = (4, 2),
    head_dim: int = 64,
    block_size: int = 16,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    seed: int = 0,
    padding: int = 0,
    max_blocks: int | None = None,
    draw_on: str = "cpu",
) -> dict[str, Any]:
    """Arguments of paged_attention for (query tokens, context) pairs, and ``padding`` query rows of no sequence.

    Free blocks and the tail of each last block hold NaN; so does the query of padding rows. Numbers drawn on
    the CPU are the same on every machine; a large batch is quicker to draw on the ``device`` itself.
    """
    generator = torch.Generator(draw_on).manual_seed(seed)
    lengths = [length for _, length in seqs]
    needs = [-(-length // block_size) for length in lengths]
    width = max([1, *needs]) if max_blocks is None else max_blocks
    num_blocks = sum(needs) + 3
    order = torch.randperm(num_blocks, generator=generator, device=draw_on).to(torch.int32)
    table = torch.full((len(seqs), width), NO_BLOCK, dtype=torch.int32, device=draw_on)
    shape = (num_blocks, block_size, heads[1], head_dim)
    caches = [torch.full(shape, float("nan"), dtype=dtype, device=draw_on) for _ in range(2)]
    taken = 0
    for seq, length in enumerate(lengths):
        ids = order[taken : taken + needs[seq]]
        taken += needs[seq]
        table[seq, : needs[seq]] = ids
        positions = torch.arange(length, device=draw_on)
        for cache in caches:
            held = torch.randn(length, *shape[2:], generator=generator, device=draw_on).to(dtype)
            cache[ids.long()[positions // block_size], positions % block_size] = held
    starts = [0, *torch.tensor([new for new, _ in seqs]).cumsum(0).tolist()] if seqs else [0]
    rows = (starts[-1] + padding, heads[0], head_dim)
    query = torch.randn(rows, generator=generator, device=draw_on).to(dtype)
    query[starts[-1] :] = float("nan")
    return {
        "query": query.to(device),
        "key_cache": caches[0].to(device),
        "value_cache": caches[1].to(device),
        "block_table": table.to(device),
        "seq_lens": torch.tensor(lengths, dtype=torch.int32, device=device),
        "query_start_loc": torch.tensor(starts, dtype=torch.int32, device=device),
        "scale": head_dim**-0.5,
    }


def truth(batch: dict[str, Any]) -> torch.Tensor:
    """The reference's answer in float64."""
    from kernels import reference  # here, so that `make_batch` can travel without the answers

    names = ("query", "key_cache", "value_cache")
    return reference.paged_attention(**(batch | {name: batch[name].double() for name in names}))
