"""Paged attention against a float64 reference, in the interpreter or compiled: the tier stands in each id."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import needs
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_batches import assert_close, error, make_batch, truth

from kernels import attention
from kernels.attention import decode_config, make_workspace, paged_attention, prefill_config
from kernels.validate import HEAD_DIMS

FLOATS = [torch.float32, torch.float16, torch.bfloat16]


def run(batch, **options):
    """Call the kernel with a poisoned output and a poisoned workspace."""
    query, heads = batch["query"], batch["key_cache"].shape[2]
    out = torch.full_like(query, float("nan"))
    workspace = make_workspace(query.shape[1], heads, query.shape[2], query.dtype, query.device)
    options = {"out": out, "workspace": workspace.fill_(float("nan")), **options}
    assert paged_attention(**batch, **options) is options["out"]
    return options["out"]


def check(batch, **options):
    assert_close(run(batch, **options), truth(batch))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_head_dims_and_dtypes(device, head_dim, dtype):
    seqs = [(1, 37), (1, 5), (19, 30)] if device == "cpu" else [(1, 937), (1, 5), (300, 700)]
    check(make_batch(seqs, head_dim=head_dim, dtype=dtype, device=device), num_decodes=2)


@pytest.mark.parametrize("heads", [(1, 1), (2, 2), (3, 1), (9, 3), (6, 2), (20, 1)], ids=str)
def test_mha_gqa_and_mqa(device, heads):
    check(make_batch([(1, 21), (1, 3), (7, 20)], heads=heads, device=device), num_decodes=2)


@pytest.mark.parametrize("block_size", [16, 32, 64, 128, 256])
def test_block_sizes(device, block_size):
    seqs = [(1, block_size + 1), (1, 9), (5, block_size)]
    check(make_batch(seqs, heads=(2, 1), block_size=block_size, device=device), num_decodes=2)


def borders(*sizes: int) -> list[int]:
    return sorted({size + step for size in sizes for step in (-1, 0, 1)})


def test_decode_lengths_at_every_border(device):
    tile = decode_config(64, torch.float32, torch.device(device)).tile
    lengths = borders(1, tile, 2 * tile, 16, 32)
    check(
        make_batch([(1, length) for length in lengths], heads=(2, 1), device=device), num_decodes=len(lengths)
    )


def test_prefill_lengths_at_every_border(device):
    config = prefill_config(64, torch.float32, torch.device(device))
    news = [new for new in borders(config.rows // 2, config.tile, 16) if new > 0]
    check(make_batch([(new, new) for new in news], heads=(2, 1), device=device))


@pytest.mark.parametrize("computed", [1, 15, 16, 17, 31, 32, 33])
def test_chunk_after_every_border(device, computed):
    check(make_batch([(new, computed + new) for new in (1, 8, 9)], heads=(2, 1), device=device))


def test_one_long_row_is_split_over_all_programs(device):
    programs = decode_config(64, torch.float32, torch.device(device)).programs
    tile = decode_config(64, torch.float32, torch.device(device)).tile
    for tiles in (programs - 1, programs, 3 * programs + 1):
        check(make_batch([(1, tiles * tile - 3)], heads=(2, 1), device=device), num_decodes=1)


def test_rows_of_one_length_fill_the_programs(device):
    programs = decode_config(64, torch.float32, torch.device(device)).programs
    for rows in (programs, 2 * programs, 2 * programs - 1):
        check(make_batch([(1, 37)] * rows, heads=(2, 1), device=device), num_decodes=rows)


@pytest.mark.parametrize("lanes", [2, 4])
def test_more_sequences_than_lanes(device, lanes, monkeypatch):
    monkeypatch.setattr(attention, "LANES", lanes)
    lengths = [5, 0, 17, 40, 0, 0, 33, 1, 16, 0, 20]
    check(make_batch([(1, length) for length in lengths], device=device), num_decodes=len(lengths))


@pytest.mark.parametrize("num_decodes", [None, 4])
def test_length_zero_gives_zeros(device, num_decodes):
    batch = make_batch([(1, 0), (1, 20), (1, 0), (1, 0)], device=device)
    out = run(batch, num_decodes=num_decodes)
    assert not out[[0, 2, 3]].any()
    assert_close(out, truth(batch))


def test_a_batch_of_nothing_gives_zeros(device):
    batch = make_batch([(1, 0)] * 3, device=device)
    assert not run(batch, num_decodes=3).any()
    assert not run(batch).any()
    assert run(make_batch([], device=device)).shape[0] == 0


def test_rows_without_a_sequence_give_zeros(device):
    batch = make_batch([(1, 18), (6, 9)], padding=21, device=device)
    for num_decodes in (None, 0, 1):
        out = run(batch, num_decodes=num_decodes)
        assert not out[7:].any()
        assert_close(out, truth(batch))


def test_decodes_alone_and_unknown_order_agree(device):
    batch = make_batch([(1, 30), (1, 17), (1, 4)], device=device)
    for options in ({"num_decodes": 3}, {"max_query_len": 1}, {"max_query_len": 7}, {"num_decodes": 2}):
        check(batch, **options)


def test_prompts_before_decodes_take_the_general_path(device):
    check(make_batch([(9, 9), (1, 30), (4, 20), (1, 3)], device=device))


def test_alone_is_batched(device):
    seqs = [(1, 33), (1, 7), (5, 5), (12, 40)]
    batch = make_batch(seqs, device=device)
    together = run(batch, num_decodes=2)
    starts = batch["query_start_loc"].tolist()
    for seq, (new, _) in enumerate(seqs):
        rows = slice(starts[seq], starts[seq + 1])
        alone = batch | {
            "query": batch["query"][rows],
            "block_table": batch["block_table"][seq : seq + 1],
            "seq_lens": batch["seq_lens"][seq : seq + 1],
            "query_start_loc": torch.tensor([0, new], dtype=torch.int32, device=device),
        }
        assert_close(run(alone, num_decodes=int(new == 1)), together[rows])


def test_strided_inputs_and_output(device):
    batch = make_batch([(1, 20), (5, 17)], device=device)
    due = truth(batch)
    wide = torch.full((6, 9, 64), float("nan"), device=device)
    wide[:, 2:6] = batch["query"]
    pair = torch.stack((batch["key_cache"], batch["value_cache"]), dim=1)
    out = torch.full((6, 8, 64), float("nan"), device=device)[:, ::2]
    strided = {"query": wide[:, 2:6], "key_cache": pair[:, 0], "value_cache": pair[:, 1]}
    assert_close(run(batch | strided, num_decodes=1, out=out), due)


def test_equal_heads_see_equal_values(device):
    """Keys that all score alike: the answer is the mean of the values, whatever the split."""
    batch = make_batch([(1, 50), (1, 16)], device=device)
    batch["query"].zero_()
    check(batch, num_decodes=2)


def test_large_scores_do_not_overflow(device):
    batch = make_batch([(1, 60), (9, 30)], device=device)
    batch["query"] *= 300
    check(batch, num_decodes=1)


SEQUENCE = st.tuples(st.integers(1, 12), st.integers(0, 40))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    decodes=st.lists(st.integers(0, 50), max_size=5),
    chunks=st.lists(SEQUENCE, max_size=3),
    heads=st.sampled_from([(1, 1), (2, 2), (4, 2), (3, 1)]),
    block_size=st.sampled_from([16, 32]),
    known=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_any_mix(device, decodes, chunks, heads, block_size, known, seed):
    larger = 1 if device == "cpu" else 23
    seqs = [(1, length * larger) for length in decodes]
    seqs += [(new * larger, (new + before) * larger) for new, before in chunks]
    batch = make_batch(seqs, heads=heads, block_size=block_size, device=device, seed=seed)
    check(batch, num_decodes=len(decodes) if known else None)


# (what is changed, by what, what the message says)
WRONG = [
    ({"query": torch.zeros(3, 4)}, "query has shape .* expected"),
    ({"query": torch.zeros(3, 4, 64, dtype=torch.float64)}, "query is float64, expected float16"),
    ({"query": torch.zeros(3, 5, 64)}, "query has 5 heads, expected a multiple of key_cache's 2"),
    ({"query": torch.zeros(3, 4, 72)}, "query has head_dim 72, expected one of 64, 80, 96, 128, 256"),
    ({"query": torch.zeros(3, 4, 128)}, "key_cache has head_dim 64, expected query's 128"),
    ({"query": torch.zeros(3, 4, 64, dtype=torch.float16)}, "key_cache is .*float32, expected query's"),
    ({"key_cache": torch.zeros(9, 48, 2, 64)}, "value_cache has shape"),
    ({"value_cache": torch.zeros(9, 16, 2, 64)}, "value_cache has shape"),
    (
        {"value_cache": torch.zeros(6, 16, 2, 64, dtype=torch.float16)},
        "value_cache is float16, expected float32",
    ),
    ({"value_cache": torch.zeros(6, 2, 16, 64).transpose(1, 2)}, "value_cache has strides"),
    ({"block_table": torch.zeros(2, 2, dtype=torch.int64)}, "block_table is int64, expected int32"),
    (
        {"block_table": torch.zeros(3, 2, dtype=torch.int32)},
        "block_table has shape .3, 2., expected .2, max_blocks",
    ),
    ({"seq_lens": torch.zeros(2)}, "seq_lens is float32, expected int32"),
    ({"query_start_loc": torch.zeros(2, dtype=torch.int32)}, "query_start_loc has shape .2., expected .3."),
    ({"scale": 0.0}, "scale is 0.0, expected a positive number"),
    ({"num_decodes": 3}, "num_decodes is 3, expected 0 to 2"),
    ({"max_seq_len": 33}, "max_seq_len is 33, expected at most 32"),
    ({"out": torch.zeros(3, 4, 80)}, "out has shape"),
    ({"workspace": torch.zeros(3), "num_decodes": 1}, "workspace holds 3 floats, expected at least"),
    ({"query": [1.0]}, "query is a list, expected a torch.Tensor"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_arguments_are_named(device, change, message):
    change = {name: at.to(device) if torch.is_tensor(at) else at for name, at in change.items()}
    batch = make_batch([(1, 20), (2, 9)], device=device) | change
    with pytest.raises(ValueError, match=message):
        paged_attention(**batch)


def test_wrong_stride_is_named(device):
    batch = make_batch([(1, 20), (2, 9)], device=device)
    batch["query"] = torch.zeros(3, 4, 128, device=device)[..., ::2]
    with pytest.raises(ValueError, match="query has stride 2 in its last dimension, expected 1"):
        paged_attention(**batch)


def test_wrong_block_size_is_named(device):
    batch = make_batch([(1, 20)], device=device)
    for name in ("key_cache", "value_cache"):
        batch[name] = torch.zeros(4, 48, 2, 64, device=device)
    with pytest.raises(ValueError, match="key_cache has block size 48, expected 16, 32, 64, 128 or 256"):
        paged_attention(**batch)


@pytest.mark.parametrize(
    ("name", "at", "value", "message"),
    [
        ("block_table", (0, 1), 77, r"block_table\[0, 1\] is 77, expected 0 to 5"),
        ("block_table", (1, 0), -1, r"block_table\[1, 0\] is -1, expected 0 to 5"),
        ("seq_lens", 1, 1, r"seq_lens\[1\] is 1, expected 0 or 2 to 32"),
        ("seq_lens", 0, 33, r"seq_lens\[0\] is 33, expected 0 or 1 to 32"),
        ("query_start_loc", 2, 9, r"query_start_loc is \[0, 1, 9\], expected 0 up to at most 3"),
        ("query_start_loc", 1, 2, r"query_start_loc begins \[0, 2\], expected one token a decode"),
    ],
)
def test_debug_mode_reads_the_contents(device, monkeypatch, name, at, value, message):
    monkeypatch.setenv("KERNELS_DEBUG", "1")
    batch = make_batch([(1, 20), (2, 9)], device=device)
    check(batch, num_decodes=1)
    batch[name][at] = value
    with pytest.raises(ValueError, match=message):
        paged_attention(**batch, num_decodes=1)


def test_a_machine_without_gpu_and_interpreter_is_told_which_to_set():
    if torch.cuda.is_available():
        needs.NO_GPU.skip()
    code = (
        "import torch; from kernels.attention import paged_attention as f; x = torch.zeros(1, 1, 64);"
        "f(x, x, x, x, x, x, scale=1.0)"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "RuntimeError: no NVIDIA GPU is visible" in run.stderr
    assert "set TRITON_INTERPRET=1" in run.stderr


def test_a_cpu_tensor_on_a_gpu_machine_is_named(tier):
    if tier != "gpu":
        needs.GPU.skip()
    with pytest.raises(ValueError, match="query is on cpu, expected a CUDA device"):
        paged_attention(**make_batch([(1, 20)]))


def test_the_package_is_light():
    code = "import sys, kernels; print([name for name in ('torch', 'triton') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_student_can_read_the_attention_file_in_one_sitting():
    """Under 400 lines of code; docstrings, comments and blank lines are not counted."""
    source = Path(attention.__file__).read_text()
    lines = {number for number, line in enumerate(source.splitlines(), 1) if line.split("#")[0].strip()}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    assert len(lines) < 400, len(lines)


@pytest.fixture
def gpu(tier):
    if tier != "gpu":
        needs.GPU.skip()


def test_graph_replay_is_eager(gpu):
    """Lengths, block table and caches change under a captured graph; padded rows come and go."""
    sizes = {"heads": (8, 2), "head_dim": 128, "dtype": torch.bfloat16, "device": "cuda", "max_blocks": 64}
    held = make_batch([(1, 1)] * 8, **sizes)
    cache = torch.full((8 * 64 + 3, 16, 2, 128), float("nan"), dtype=torch.bfloat16, device="cuda")
    held |= {"key_cache": cache, "value_cache": cache.clone()}
    held["block_table"].zero_()
    held["seq_lens"].zero_()
    workspace = make_workspace(8, 2, 128, torch.bfloat16, "cuda")
    out = torch.empty_like(held["query"])
    options = {"num_decodes": 8, "max_query_len": 1, "max_seq_len": 1024, "workspace": workspace, "out": out}
    paged_attention(**held, **options)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        paged_attention(**held, **options)
    for seed, lengths in enumerate(([1] * 8, [1024, 0, 3, 700, 64, 65, 63, 0], [0] * 8, [128] * 8)):
        fresh = make_batch([(1, length) for length in lengths], seed=seed, **sizes)
        for name in ("query", "block_table", "seq_lens"):
            held[name].copy_(fresh[name])
        for name in ("key_cache", "value_cache"):
            held[name].fill_(float("nan"))[: len(fresh[name])] = fresh[name]
        out.fill_(float("nan"))
        graph.replay()
        replayed = out.clone()
        assert_close(replayed, truth(fresh))
        assert torch.equal(replayed, paged_attention(**held, **options))


def test_mixed_step_in_a_graph(gpu):
    batch = make_batch(
        [(1, 300), (1, 0), (100, 400), (60, 60)], head_dim=128, dtype=torch.float16, device="cuda"
    )
    out = torch.empty_like(batch["query"])
    workspace = make_workspace(4, 2, 128, torch.float16, "cuda")
    options = {"num_decodes": 2, "max_query_len": 100, "max_seq_len": 400, "workspace": workspace, "out": out}
    paged_attention(**batch, **options)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        paged_attention(**batch, **options)
    out.fill_(float("nan"))
    graph.replay()
    assert_close(out, truth(batch))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_serving_shapes(gpu, dtype):
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(1, 4096, (40,), generator=generator).tolist()
    seqs = [(1, length) for length in lengths] + [(512, 2048), (777, 777), (31, 1500)]
    for heads in ((32, 32), (32, 8)):
        batch = make_batch(seqs, heads=heads, head_dim=128, dtype=dtype, device="cuda")
        out = run(batch, num_decodes=40)
        assert_close(out, truth(batch))
        assert error(out, run(batch)) < 1e-2


def test_caches_beyond_two_billion_elements(gpu):
    """A block id times the block stride must not be taken in 32 bits."""
    batch = make_batch([(1, 100), (50, 90)], heads=(2, 2), head_dim=128, dtype=torch.bfloat16, device="cuda")
    due = truth(batch)
    blocks = batch["key_cache"].shape[0]
    extra = (1 << 31) // (16 * 2 * 128)
    for name in ("key_cache", "value_cache"):
        large = torch.empty(blocks + extra, 16, 2, 128, dtype=torch.bfloat16, device="cuda")
        large[extra:] = batch[name]
        batch[name] = large
    batch["block_table"] += extra
    assert_close(run(batch, num_decodes=1), due)
