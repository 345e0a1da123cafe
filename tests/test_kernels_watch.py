"""What notebook 04 looks at is what the kernels do; the tier stands in each id."""

import subprocess
import sys

import pytest
import torch
from kernel_batches import assert_close, make_batch, truth

from kernels import ladder, watch


@pytest.fixture
def one(device):
    """One rider and head: the batch, its keys and values as plain rows, and the due answer."""
    batch = make_batch([(1, 45)], heads=(1, 1), device=device)
    blocks = batch["block_table"][0].long()
    rows = [batch[name][blocks].flatten(0, 2)[:45] for name in ("key_cache", "value_cache")]
    return batch, rows, truth(batch)[0, 0]


def test_watched_tiles_lead_to_the_answer_of_the_rung(one):
    batch, rows, due = one
    query, scale = batch["query"][0, 0], batch["scale"]
    steps = watch.watch_tiles(query, *rows, scale=scale)
    assert_close((steps.acc[-1] / steps.total[-1]).to(query.device), due)
    assert_close(ladder.tiled(query, *rows, scale=scale), due)
    assert steps.scores.isfinite().sum() == 45
    assert torch.equal(steps.best, steps.scores.amax(1).cummax(0).values)


def test_pieces_of_a_row_are_those_of_the_whole(one):
    batch, rows, _ = one
    query, scale = batch["query"][0, 0], batch["scale"]
    whole = watch.watch_tiles(query, *rows, scale=scale)
    left, right = (
        watch.watch_tiles(query, *rows, scale=scale, first=first, last=last)
        for first, last in ((0, 32), (32, 45))
    )
    assert torch.equal(left.acc, whole.acc[:2])
    best = max(left.best[-1], right.best[-1])
    total = sum(piece.total[-1] * torch.exp2(piece.best[-1] - best) for piece in (left, right))
    torch.testing.assert_close(total * torch.exp2(best - whole.best[-1]), whole.total[-1])


def test_a_mask_left_out_is_heard(one):
    batch, _, due = one
    caches, blocks = (batch["key_cache"], batch["value_cache"]), batch["block_table"][0]

    def run(**masks):
        return watch.careless(batch["query"][0, 0], *caches, blocks, 45, scale=batch["scale"], **masks)

    assert_close(run(), due)
    assert run(mask_values=False).isnan().all()
    for cache in caches:
        cache[blocks[2], 45 % 16 :] = 1.0
    assert_close(run(), due)
    assert_close(run(mask_values=False), due)
    with pytest.raises(AssertionError):
        assert_close(run(mask_scores=False), due)


@pytest.mark.parametrize(("lengths", "programs"), [([50, 800], 5), ([0, 1, 33], 7), ([16], 3), ([640], 132)])
def test_shares_are_even_and_leave_nothing_out(device, lengths, programs):
    seq_lens = torch.tensor(lengths, dtype=torch.int32, device=device)
    first, last = watch.shares(seq_lens, 2, programs=programs).T
    assert first[0] == 0
    assert torch.equal(first[1:], last[:-1])
    assert last[-1] == 2 * sum(-(-length // 16) for length in lengths)
    assert (last - first).max() - (last - first).min() <= 1


def test_shares_are_whole_rows_where_rows_of_one_length_nearly_fill_the_programs(device):
    for sequences, due in ((8, [4] * 16 + [0]), (6, [3] * 14 + [2] * 3), (17, [8] * 17)):
        seq_lens = torch.full((sequences,), 50, dtype=torch.int32, device=device)
        first, last = watch.shares(seq_lens, 2, programs=17).T
        assert (last - first).tolist() == due


def test_the_tier_is_chosen_before_triton_or_not_at_all(tier):
    choose = "from kernels.tier import prepare; tier = prepare(); import kernels.ladder; print(tier.name)"
    late = "import triton; " + choose
    without = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ":".join(sys.path)}
    done = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=without)
        for code in (choose, late)
    ]
    assert done[0].stdout == "interpreter\n", done[0].stderr
    assert "call kernels.tier.prepare() first" in done[1].stderr
