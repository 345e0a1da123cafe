"""Shared by all tests: the tier, said once at the top of a run, and the real model."""

import pytest

import lessonlib  # noqa: F401  (before torch: it sets how torch's threads wait)
from kernels.tier import prepare

KERNEL_TIER = prepare().name  # before any test imports a kernel: Triton asks when one is decorated

import torch  # noqa: E402


def pytest_report_header() -> str:
    where = torch.cuda.get_device_name() if KERNEL_TIER == "gpu" else "Triton's interpreter, no GPU"
    return f"kernels: tier {KERNEL_TIER} ({where})"


@pytest.fixture(params=["interpreter", pytest.param("gpu", marks=pytest.mark.gpu)])
def tier(request: pytest.FixtureRequest) -> str:
    """The tier a test ran in stands in its id; the other one is skipped and says so."""
    if request.param != KERNEL_TIER:
        pytest.skip(f"not checked here: tier {request.param}; this machine runs tier {KERNEL_TIER}")
    return request.param


@pytest.fixture
def device(tier: str) -> str:
    return "cuda" if tier == "gpu" else "cpu"


@pytest.fixture(scope="session")
def model_path():
    """The folder of the course's real model, fetched where it is missing."""
    from lessonlib.engine.checkpoint import resolve

    return resolve("smollm2")
