"""Every rung of the ladder gives the same answer; the tier stands in each id."""

import pytest
import torch
from kernel_batches import assert_close, make_batch, truth

from kernels import ladder

ONE = {"heads": (1, 1), "head_dim": 64}


@pytest.mark.parametrize("length", [1, 15, 16, 17, 45])
def test_one_sequence_and_head(device, length):
    batch = make_batch([(1, length)], **ONE, device=device)
    due = truth(batch)[0, 0]
    blocks, query, scale = batch["block_table"][0], batch["query"][0, 0], batch["scale"]
    caches = batch["key_cache"], batch["value_cache"]
    rows = [cache[blocks.long()].flatten(0, 2)[:length] for cache in caches]
    assert_close(ladder.loop(query, *rows, scale=scale), due)
    assert_close(ladder.tiled(query, *rows, scale=scale), due)
    assert_close(ladder.paged(query, *caches, blocks, length, scale=scale), due)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rung", [ladder.ragged, ladder.grouped], ids=["ragged", "grouped"])
def test_many_ragged_sequences(device, rung, dtype):
    batch = make_batch([(1, length) for length in (33, 1, 0, 16)], dtype=dtype, device=device)
    due = truth(batch)
    del batch["query_start_loc"]
    assert_close(rung(**batch), due)
