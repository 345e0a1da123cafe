"""The timeline of a step: what ran, for how long, and what lies between."""

import pytest
import torch

from benchmarks.timeline import Span, busy, measure
from lessonlib.engine.model import Llama


def test_what_overlaps_counts_once():
    told = [Span("a", 0, 4), Span("b", 2, 4), Span("c", 3, 1), Span("d", 10, 2)]
    assert busy(told) == 8


@pytest.mark.prove
def test_a_step_has_all_its_products(model_path):
    llama = Llama(model_path, torch.float32)
    row = measure(llama, riders=3, context=100, bandwidth=1e9)  # more than one step reads
    calls = {kernel["kernel"]: kernel["calls"] for kernel in row["kernels"]}
    products = sum(count for name, count in calls.items() if "linear" in name and "aten" not in name)
    assert products == 5 * llama.config.num_layers + 1  # qkv, out, gate, up, down; and the logits
    assert 0 < row["busy_us"] <= row["step_us"]
    assert all(start >= 0 for _, start, _ in row["one_step"])
