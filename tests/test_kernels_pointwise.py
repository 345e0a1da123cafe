"""The K/V write and the pointwise kernels against their references; the tier stands in each id."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_batches import assert_close

from kernels import reference
from kernels.cache import write_kv
from kernels.pointwise import rms_norm, rotary_write_kv, silu_and_mul

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
ANY_MIX = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def random(*shape, dtype=torch.float32, device="cpu", seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(device)


def angles(positions, head_dim, device):
    frequencies = 10000.0 ** -(torch.arange(0, head_dim, 2) / head_dim)
    turned = torch.arange(positions)[:, None] * frequencies[None, :]
    return torch.cat((turned.cos(), turned.sin()), dim=-1).to(device)


def step(tokens, heads, kv_heads, head_dim, dtype, device, slot_dtype=torch.int64, seed=0):
    """One step's tensors: slots permuted, every third token padding, caches full of a sentinel."""
    made = {"dtype": dtype, "device": device}
    blocks = -(-tokens // 16) + 2
    slots = torch.randperm(blocks * 16, generator=torch.Generator().manual_seed(seed))[:tokens].to(slot_dtype)
    slots[::3] = -1
    return {
        "query": random(tokens, heads, head_dim, seed=seed, **made),
        "key": random(tokens, kv_heads, head_dim, seed=seed + 1, **made),
        "value": random(tokens, kv_heads, head_dim, seed=seed + 2, **made),
        "key_cache": torch.full((blocks, 16, kv_heads, head_dim), 7.0, **made),
        "value_cache": torch.full((blocks, 16, kv_heads, head_dim), 7.0, **made),
        "slot_mapping": slots.to(device),
    }


def copies(arguments, double=False):
    return {
        name: at.double() if double and at.is_floating_point() else at.clone()
        for name, at in arguments.items()
    }


@pytest.mark.parametrize("slot_dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_write_kv_is_exact_and_skips_minus_one(device, dtype, slot_dtype):
    came = step(9, 1, 2, 80, dtype, device, slot_dtype)
    del came["query"]
    due = copies(came)
    write_kv(**came)
    reference.write_kv(**due)
    for name in ("key_cache", "value_cache"):
        assert torch.equal(came[name], due[name])


def test_write_kv_takes_slices_of_a_joint_projection(device):
    came = step(5, 1, 2, 64, torch.float32, device)
    joint = random(5, 2, 3, 64, device=device)
    came |= {"key": joint[:, :, 0], "value": joint[:, :, 2]}
    del came["query"]
    due = copies(came)
    write_kv(**came)
    reference.write_kv(**due)
    assert torch.equal(came["value_cache"], due["value_cache"])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("heads", "head_dim"), [((4, 2), 64), ((3, 1), 80), ((2, 2), 96)], ids=str)
def test_rotary_write_kv(device, dtype, heads, head_dim):
    came = step(7, *heads, head_dim, dtype, device)
    came["positions"] = torch.tensor([0, 5, 99, 1, 2, 50, 7], device=device)
    came["cos_sin"] = angles(100, head_dim, device)
    due, key = copies(came, double=True), came["key"].clone()
    rotary_write_kv(**came)
    reference.rotary_write_kv(**due)
    for name in ("query", "key_cache", "value_cache"):
        assert_close(came[name], due[name])
    assert torch.equal(came["key"], key)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_residual", [False, True], ids=["plain", "residual"])
def test_rms_norm(device, dtype, with_residual):
    x, weight = random(5, 200, dtype=dtype, device=device), random(200, dtype=dtype, device=device, seed=1)
    residual = random(5, 200, dtype=dtype, device=device, seed=2) if with_residual else None
    wide = residual.double() if with_residual else None
    due = reference.rms_norm(x.double(), weight.double(), eps=1e-5, residual=wide)
    out = torch.full_like(x, float("nan"))
    assert rms_norm(x, weight, eps=1e-5, residual=residual, out=out) is out
    assert_close(out, due)
    if with_residual:
        assert_close(residual, wide)


def test_rms_norm_in_place(device):
    x, weight = random(3, 64, device=device), random(64, device=device, seed=1)
    due = reference.rms_norm(x, weight, eps=1e-6)
    assert_close(rms_norm(x, weight, eps=1e-6, out=x), due)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [40, 1025])
def test_silu_and_mul(device, dtype, width):
    gate_up = random(3, 2 * width, dtype=dtype, device=device)
    out = torch.full((3, width), float("nan"), dtype=dtype, device=device)
    assert_close(silu_and_mul(gate_up, out=out), reference.silu_and_mul(gate_up.double()))


@settings(max_examples=8, **ANY_MIX)
@given(tokens=st.integers(0, 6), width=st.integers(1, 70), seed=st.integers(0, 2**20))
def test_pointwise_any_shape(device, tokens, width, seed):
    x, weight = random(tokens, width, device=device, seed=seed), random(width, device=device, seed=seed + 1)
    assert_close(rms_norm(x, weight, eps=1e-5), reference.rms_norm(x.double(), weight.double(), eps=1e-5))
    both = random(tokens, 2 * width, device=device, seed=seed)
    assert_close(silu_and_mul(both), reference.silu_and_mul(both.double()))


def test_wrong_arguments_are_named(device):
    came = step(4, 4, 2, 64, torch.float32, device)
    rotary = {"positions": torch.arange(4, device=device), "cos_sin": angles(9, 64, device)}
    with pytest.raises(ValueError, match=r"key has shape .4, 3, 64., expected .num_tokens, 2, 64."):
        rotary_write_kv(**(came | rotary | {"key": random(4, 3, 64, device=device)}))
    with pytest.raises(ValueError, match="slot_mapping is float32, expected int32 or int64"):
        rotary_write_kv(**(came | rotary | {"slot_mapping": random(4, device=device)}))
    with pytest.raises(ValueError, match="query has 3 heads, expected a multiple of key's 2"):
        rotary_write_kv(**(came | rotary | {"query": random(4, 3, 64, device=device)}))
    with pytest.raises(ValueError, match="cos_sin has shape"):
        rotary_write_kv(**(came | rotary | {"cos_sin": random(9, 32, device=device)}))
    with pytest.raises(ValueError, match=r"weight has shape .3., expected .8."):
        rms_norm(random(2, 8, device=device), random(3, device=device), eps=1e-5)
    with pytest.raises(ValueError, match="gate_up has width 7, expected an even number"):
        silu_and_mul(random(2, 7, device=device))
