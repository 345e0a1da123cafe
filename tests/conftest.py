"""Shared by all tests: the tier, said once at the top of a run, the real model, a browser."""

from collections.abc import Iterator
from typing import Any

import needs
import pytest

import lessonlib  # noqa: F401  (before torch: it sets how torch's threads wait)
from kernels.tier import prepare

pytest_plugins = ("pytester",)
# By seconds of a processor, as measured; each file stays with one worker, which sets up its fixtures once.
LONGEST = (
    "test_contenders_vllm",
    "test_engine",
    "test_contenders",
    "test_lab_browser",
    "test_grading",
    "test_kernels_compile",
    "test_without_triton",
    "test_kernels_sampling",
    "test_checks_mutants",
    "test_wheel",
    "test_site",
    "test_paged_engine",
)
KERNEL_TIER = prepare().name  # before any test imports a kernel: Triton asks when one is decorated

import torch  # noqa: E402

from lessonlib import doctor  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(needs)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that of two workers neither is left with one at the end."""
    first = {name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path.stem, len(first)))


def pytest_report_header() -> str:
    where = torch.cuda.get_device_name() if KERNEL_TIER == "gpu" else "Triton's interpreter, no GPU"
    return f"kernels: tier {KERNEL_TIER} ({where})"


@pytest.fixture(params=["interpreter", pytest.param("gpu", marks=pytest.mark.gpu)])
def tier(request: pytest.FixtureRequest) -> str:
    """The tier a test ran in stands in its id; the other one is skipped and says so."""
    if request.param != KERNEL_TIER:
        needs.TIERS[request.param].skip()
    return request.param


@pytest.fixture
def device(tier: str) -> str:
    return "cuda" if tier == "gpu" else "cpu"


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """PyTorch with one thread: on a tiny model, on a busy machine, two are thirty times as slow."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def model_path():
    """The folder of the course's real model, fetched where it is missing."""
    from lessonlib.engine.checkpoint import resolve

    return resolve("smollm2")


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """A folder with a small Llama, its weights random: quick to load, and with heads of a size that few take."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=96,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        max_position_embeddings=4096,
    )
    folder = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, or a skip that says how to get one."""
    playwright = needs.PLAYWRIGHT.module("playwright.sync_api")
    path = doctor.find_chromium()
    if path is None:
        needs.CHROMIUM.skip()
    with playwright.sync_playwright() as player:
        chromium = player.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()
