"""Shared by all tests: the tier is said once, at the top of every run."""

import importlib.util
import os

import pytest

import lessonlib  # noqa: F401  (before torch: it sets how torch's threads wait)

if "TRITON_INTERPRET" not in os.environ and importlib.util.find_spec("torch"):
    import torch

    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"  # must be set before triton is imported


def pytest_report_header():
    from lessonlib.doctor import examine, tier_of

    return f"tier: {tier_of(examine())}"


@pytest.fixture(scope="session")
def model_path():
    """The folder of the course's real model, fetched where it is missing."""
    from lessonlib.engine.checkpoint import resolve

    return resolve("smollm2")
