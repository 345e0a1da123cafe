"""The product for few tokens against float64, in the interpreter or compiled: the tier stands in each id."""

import needs
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_batches import assert_close

from kernels import linear, reference
from kernels.linear import MAX_TOKENS, linear_config, skinny_linear

FLOATS = [torch.float32, torch.float16, torch.bfloat16]
ANY_SHAPE = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def random(*shape, dtype=torch.float32, device="cpu", seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(device)


def run(x, weight):
    """Call the kernel with a poisoned output."""
    out = torch.full((len(x), len(weight)), float("nan"), dtype=x.dtype, device=x.device)
    assert skinny_linear(x, weight, out=out) is out
    return out


def check(tokens, rows, width, dtype, device, seed=0):
    x = random(tokens, width, dtype=dtype, device=device, seed=seed)
    weight = random(rows, width, dtype=dtype, device=device, seed=seed + 1)
    assert_close(run(x, weight), reference.skinny_linear(x.double(), weight.double()))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 8, 16, 33, 64])
def test_tokens_and_dtypes(device, tokens, dtype):
    check(tokens, 48, 96, dtype, device)


@settings(max_examples=12, **ANY_SHAPE)
@given(
    tokens=st.integers(0, 9), rows=st.integers(0, 40), width=st.integers(1, 100), seed=st.integers(0, 2**20)
)
def test_any_shape(device, tokens, rows, width, seed):
    check(tokens, rows, width, torch.float32, device, seed)


@settings(max_examples=6, **ANY_SHAPE)
@given(split=st.integers(1, 5), width=st.integers(1, 130), seed=st.integers(0, 2**20))
def test_any_split(device, split, width, seed):
    """Shares of K that are uneven, or empty; and the tickets are as they were."""
    tried = linear_config(8, 20, width, torch.float32, torch.device(device))._replace(split=split)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "linear_config", lambda *_: tried)
        for _ in range(2):
            check(8, 20, width, torch.float32, device, seed)


@pytest.mark.parametrize("tokens", [3, 7])
def test_views_are_taken_as_they_are(device, tokens):
    """Rows that lie apart: part of a joint projection as x, part of a joint matrix as the weights."""
    x = random(tokens, 80, device=device)[:, 16:64]
    weight = random(40, 64, device=device, seed=1)[8:30, :48]
    joint = torch.full((tokens, 50), 7.0, device=device)
    skinny_linear(x, weight, out=joint[:, 11:33])
    assert_close(joint[:, 11:33], reference.skinny_linear(x.double(), weight.double()))
    assert (joint[:, :11] == 7).all()
    assert (joint[:, 33:] == 7).all()


@pytest.mark.parametrize("tokens", [2, 6])
def test_neighbors_change_nothing(device, tokens):
    """The same token among others, of which some are no numbers: the same bits."""
    x, weight = random(tokens, 70, device=device), random(33, 70, device=device, seed=1)
    others = random(tokens, 70, device=device, seed=2)
    others[0], others[-1] = x[0], float("nan")
    assert torch.equal(skinny_linear(others, weight)[0], skinny_linear(x, weight)[0])


def test_wrong_arguments_are_named(device):
    x, weight = random(2, 16, device=device), random(5, 16, device=device)
    with pytest.raises(ValueError, match=r"weight has shape .5, 15., expected .out_features, 16."):
        skinny_linear(x, weight[:, :15])
    with pytest.raises(ValueError, match="weight is float16, expected float32"):
        skinny_linear(x, weight.half())
    with pytest.raises(ValueError, match=f"x has {MAX_TOKENS + 1} tokens, expected at most {MAX_TOKENS}"):
        skinny_linear(x[:1].expand(MAX_TOKENS + 1, -1), weight)
    with pytest.raises(ValueError, match="weight has stride 5 in its last dimension, expected 1"):
        skinny_linear(x, random(16, 5, device=device).T)
    with pytest.raises(ValueError, match=r"out has shape .2, 4., expected .2, 5."):
        skinny_linear(x, weight, out=x.new_empty(2, 4))


@pytest.fixture
def gpu(tier):
    if tier != "gpu":
        needs.GPU.skip()


LLAMA_2_7B = {"qkv": (12288, 4096), "o": (4096, 4096), "gate_up": (22016, 4096), "down": (4096, 11008)}


@pytest.mark.parametrize("tokens", [1, 4, 8, 16, 24, 64])
@pytest.mark.parametrize("shape", LLAMA_2_7B.values(), ids=LLAMA_2_7B)
def test_a_models_shapes(gpu, shape, tokens):
    check(tokens, *shape, torch.bfloat16, "cuda")


@pytest.mark.parametrize("tokens", [1, 2, 4, 8, 16, 32])
def test_in_a_batch_as_in_another_and_run_after_run(gpu, tokens):
    """Bit for bit, with other neighbors and other timing: full grids of a split product."""
    weight = random(4096, 11008, dtype=torch.bfloat16, device="cuda")
    x = random(tokens, 11008, dtype=torch.bfloat16, device="cuda", seed=1)
    due = skinny_linear(x, weight).clone()
    for seed in range(20):
        others = random(tokens, 11008, dtype=torch.bfloat16, device="cuda", seed=seed + 2)
        others[tokens // 2] = x[tokens // 2]
        assert torch.equal(skinny_linear(others, weight)[tokens // 2], due[tokens // 2])
        assert torch.equal(skinny_linear(x, weight), due)


@pytest.mark.parametrize("tokens", [1, 4, 16])
def test_a_chain_in_a_graph_is_the_eager_chain(gpu, tokens):
    """Each product starts before the one ahead of it has ended, and still sees all that it wrote."""
    up = random(11008, 4096, dtype=torch.bfloat16, device="cuda") / 64
    down = random(4096, 11008, dtype=torch.bfloat16, device="cuda", seed=1) / 105
    x = random(tokens, 4096, dtype=torch.bfloat16, device="cuda", seed=2)

    def chain(x):
        for _ in range(4):
            x = skinny_linear(skinny_linear(x, up), down)
        return x

    chain(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = chain(x)
    for seed in range(10):
        x.copy_(random(tokens, 4096, dtype=torch.bfloat16, seed=seed + 3))
        out.fill_(float("nan"))
        graph.replay()
        due = x
        for _ in range(4):
            due = skinny_linear(due, up)
            torch.cuda.synchronize()
            due = skinny_linear(due, down)
            torch.cuda.synchronize()
        assert torch.equal(out, due)
