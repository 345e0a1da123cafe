"""Products on AMX units beside PyTorch's in float32, and what happens where a machine has none."""

import needs
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from engine_models import one_prompt, write_config

from lessonlib.engine.cpu import amx, native
from lessonlib.engine.model import Llama
from lessonlib.engine.runner import ModelRunner

needs_amx = needs.AMX.unless(amx.loop())
# Sums in float32 in another order, and one rounding to 8 bits.
CLOSE = {"rtol": 2**-8, "atol": 2e-3}


def drawn(*shape):
    torch.manual_seed(0)
    return torch.randn(shape).bfloat16()


@needs_amx
@pytest.mark.parametrize("tokens", [1, 2, 3, 16, 17, 31, 32, 33, 64, 95, 200])
@pytest.mark.parametrize(("columns", "depth"), [(32, 32), (96, 576), (1152, 96)])
def test_a_product_is_that_of_float32_rounded_once(tokens, columns, depth):
    x, weight = drawn(tokens, depth), drawn(columns, depth)
    due = x.float() @ weight.float().T
    found = amx.product(x, amx.pack(weight))
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), due, **CLOSE)


@needs_amx
@pytest.mark.parametrize("tokens", [1, 5, 32, 45])
def test_a_gate_lets_through_what_silu_says(tokens):
    x, weight = drawn(tokens, 64), drawn(96, 64)
    weight[:3] *= 40  # gates far open and far shut
    gate, up = (x.float() @ weight.float().T).chunk(2, dim=1)
    found = amx.product(x, amx.pack(weight, is_gate_up=True))
    torch.testing.assert_close(found.float(), F.silu(gate) * up, **CLOSE)


@needs_amx
@pytest.mark.parametrize("is_gate_up", [False, True])
def test_a_rows_product_does_not_depend_on_its_neighbors(is_gate_up):
    x, matrix = drawn(77, 576), amx.pack(drawn(160, 576), is_gate_up)
    together = amx.product(x, matrix)
    alone = torch.cat([amx.product(x[row : row + 1], matrix) for row in range(len(x))])
    assert torch.equal(together, alone)
    x[40] = torch.nan
    assert torch.equal(amx.product(x, matrix).isnan().any(1).nonzero(), torch.tensor([[40]]))


@needs_amx
def test_no_rows_and_rows_that_lie_apart():
    x, weight = drawn(6, 64), drawn(32, 64)
    matrix = amx.pack(weight)
    assert amx.product(x[:0], matrix).shape == (0, 32)
    assert torch.equal(amx.product(x[::2], matrix), amx.product(x, matrix)[::2])


@needs_amx
def test_only_what_fits_goes_to_the_tiles():
    assert amx.fits(drawn(64, 96))
    assert not amx.fits(drawn(64, 96).float())
    assert not amx.fits(drawn(64, 90))
    assert not amx.fits(drawn(40, 96))


@pytest.fixture
def without_amx(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_init_amx", lambda: False)  # the system lets nobody have them
    amx.loop.cache_clear()
    yield
    amx.loop.cache_clear()


@pytest.mark.usefixtures("without_amx")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_without_amx_onednn_multiplies(dtype):
    x, weight = drawn(5, 64).to(dtype), drawn(96, 64).to(dtype)
    packed, gate_up = native.pack(weight), native.pack_gate_up(weight)
    is_packed = dtype is torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert packed.is_mkldnn == is_packed
    assert all(half.is_mkldnn == is_packed for half in gate_up)
    due = x.float() @ weight.float().T
    torch.testing.assert_close(native.linear(x, packed).float(), due, **CLOSE)
    gate, up = due.chunk(2, dim=1)
    torch.testing.assert_close(native.gated(x, gate_up).float(), F.silu(gate) * up, rtol=2**-6, atol=2e-2)


@needs_amx
def test_an_engine_says_the_same_with_amx_and_without(tmp_path, request):
    folder = write_config(tmp_path)

    def logits():
        model = Llama(folder, torch.bfloat16, load_format="dummy")
        with torch.inference_mode():
            return model, ModelRunner(model, 8, 16).forward(one_prompt(range(3, 40)))[0].double()

    model, found = logits()
    assert isinstance(model.layers[0].gate_up, amx.Matrix)
    request.getfixturevalue("without_amx")
    model, due = logits()
    assert model.head.is_mkldnn == torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert (found - due).norm() / due.norm() < 2e-2
