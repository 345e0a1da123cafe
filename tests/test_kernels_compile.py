"""Every kernel is compiled for cards that need not be there, and each card can launch what it gets."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cards import CARDS, problems

from kernels import attention, cards, linear
from kernels.validate import HEAD_DIMS

OFFLINE = Path(__file__).parent / "offline_kernels.py"
KERNELS = Path(__file__).parents[1] / "kernels"
FILES = (
    "attention.py",
    "cache.py",
    "ladder.py",
    "linear.py",
    "pointwise.py",
    "sampling.py",
)  # the others need results
KERNEL = re.compile(r"^def (_\w+_kernel)\(", re.MULTILINE)
CUDA = torch.device("cuda")
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def compiled(root, *arguments):
    """The script's end, with the `kernels` that lie in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, str(OFFLINE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=3600, env=environment)


def used(*arguments):
    """What each compiled kernel takes of its card."""
    done = compiled(KERNELS.parent, *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def complaints(lines):
    return [problem for line in lines for problem in problems(line)]


@pytest.mark.parametrize(
    "card", [pytest.param(card, marks=() if card == "9.0" else pytest.mark.prove) for card in CARDS]
)
def test_every_kernel_compiles_and_fits(card):
    lines = used("--work", "every", card)
    names = {name for file in FILES for name in KERNEL.findall((KERNELS / file).read_text())}
    missing = names - {line["kernel"] for line in lines}
    assert not missing, f"`every` in tests/offline_kernels.py calls nothing that launches {missing}"
    assert not complaints(lines)


def test_the_largest_settings_fit_each_card():
    """A sample of the next test's, which takes minutes: the settings that ask for most, on every card."""
    lines = used("--work", "large", *CARDS)
    assert {line["card"] for line in lines} == set(CARDS)
    assert not complaints(lines)


@pytest.mark.prove
@pytest.mark.parametrize("card", CARDS)
def test_all_that_the_engine_launches_fits(card):
    lines = used("--work", "models", card)
    assert len(lines) > 50
    assert not complaints(lines)


def test_settings_of_a_larger_card_are_found_out():
    """What an H100 takes, an RTX 3060 cannot launch."""
    lines = used("--work", "large", "8.6", "--limits-of", "9.0")
    found = complaints(lines)
    assert any("_prefill_kernel" in problem and "shared memory" in problem for problem in found)
    assert any("_more_tokens_kernel" in problem and "shared memory" in problem for problem in found)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, []),
        ({"shared": 64 * 1024 + 1}, ["shared memory"]),
        ({"threads": 2048, "registers": 32}, ["threads"]),
        ({"registers": 256, "threads": 32}, ["registers"]),
        ({"registers": 129, "threads": 512}, ["registers"]),
        ({"registers": None}, []),
    ],
    ids=str,
)
def test_what_a_card_cannot_launch_is_told(changed, told):
    fits = {
        "card": "7.5",
        "kernel": "k",
        "settings": {},
        "shared": 64 * 1024,
        "threads": 512,
        "registers": 128,
    }
    found = problems(fits | changed)
    assert len(found) == len(told)
    assert all(word in problem for word, problem in zip(told, found, strict=True))


@pytest.fixture
def claimed(monkeypatch):
    """Makes the kernels think that a card is there, by its compute capability."""

    def claim(capability):
        limits = CARDS[capability]
        major, minor = map(int, capability.split("."))
        found = SimpleNamespace(
            major=major,
            minor=minor,
            multi_processor_count=limits.processors,
            shared_memory_per_block_optin=limits.shared_bytes,
        )
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
        cards.card_of.cache_clear()
        return limits

    yield claim
    cards.card_of.cache_clear()


@pytest.mark.parametrize("card", CARDS)
def test_settings_are_chosen_by_the_cards_limits(claimed, card):
    room = claimed(card).shared_bytes
    for dtype in DTYPES:
        for head_dim in HEAD_DIMS:
            config = attention.prefill_config(head_dim, dtype, CUDA)
            padded = 1 << (head_dim - 1).bit_length()
            assert config.shared_bytes(padded, dtype.itemsize) <= room - cards.RESERVED
            assert attention.decode_config(head_dim, dtype, CUDA).programs >= claimed(card).processors
        for tokens in (5, 16, 32, 64):
            config = linear.linear_config(tokens, 4096, 4096, dtype, CUDA)
            columns = config.rows + linear.padded_tokens(tokens)
            assert config.num_stages * config.tile * columns * dtype.itemsize <= room - cards.RESERVED


def test_the_page_of_machines_has_these_limits():
    page = (KERNELS.parent / "docs" / "machines.md").read_text(encoding="utf-8")
    for capability, limits in CARDS.items():
        has_bfloat16 = "yes" if limits.has_bfloat16 else "no"
        row = f"| {capability} | {limits.example} | {limits.shared_kib} KiB | {has_bfloat16} | "
        assert row in page, row


def test_a_hopper_card_keeps_the_settings_that_were_measured(claimed):
    claimed("9.0")
    sizes = {dim: attention.prefill_config(dim, torch.bfloat16, CUDA)[:2] for dim in HEAD_DIMS}
    assert set(sizes.values()) == {(128, 64)}
    config = linear.linear_config(64, 4096, 4096, torch.bfloat16, CUDA)
    assert (config.rows, config.tile, config.num_stages) == (64, 256, 3)


def test_a_card_that_can_launch_nothing_is_told_in_a_line(claimed):
    claimed("7.5")
    with pytest.raises(ValueError, match="64512 bytes of shared memory, and the kernel needs 90000"):
        cards.first_that_fits([("large", 100_000), ("small", 90_000)], CUDA)


def test_what_only_the_compiler_refuses_is_refused(tmp_path):
    """A name that stands for two shapes, as the interpreter lets it."""
    broken = tmp_path / "kernels"
    broken.mkdir()
    for path in KERNELS.glob("*.py"):
        (broken / path.name).write_text(path.read_text().replace("k_first", "first"))
    done = compiled(tmp_path, "9.0")
    assert done.returncode != 0
    assert "CompilationError" in done.stderr
