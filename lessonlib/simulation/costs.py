"""What a step costs: from a hardware description, or fitted to a measured Trace.

    compute = per_prefill_token × prompt tokens + per_decode_row × rows that decode
    seconds = launch + weights + max(0, compute - hidden_compute) + per_kv_token × K/V tokens read

While a step reads the weights, it computes some rows at no extra time: a step of few rows takes as long as a step of
one. A fit finds how much compute is hidden in this way, at most a step's fixed cost. From a hardware description the
model is rougher: decoding is hidden entirely (on an H100 up to about 295 rows, the ratio of its FLOP/s to its bytes a
second), and prefill not at all. Left out: attention's compute, which grows with the square of a prompt, and whatever
runs beside the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lessonlib.errors import CourseError
from lessonlib.metrics import decode_rows, kv_tokens, prefill_tokens
from lessonlib.scheduling.plan import StepPlan
from lessonlib.trace import Trace

BYTES_PER_VALUE = 2  # bf16 and fp16
SIZES_TRIED = 40
LEAST_EXPECTED = 0.05  # of the mean step: bounds the weight of the shortest steps
Column = np.ndarray
"""One number for each step, float64 or int64 `[steps]`."""


@dataclass(frozen=True)
class Gpu:
    """A card by its datasheet: bytes of memory, bytes a second, dense 16-bit FLOP a second."""

    memory: float
    bandwidth: float
    flops: float


GPUS = {
    # NVIDIA H100 SXM datasheet: 80 GB, 3.35 TB/s, 989.4 dense BF16 TFLOP/s.
    "h100": Gpu(80e9, 3.35e12, 989.4e12),
    # NVIDIA H200 datasheet: 141 GB, 4.8 TB/s, 989.4 dense BF16 TFLOP/s.
    "h200": Gpu(141e9, 4.8e12, 989.4e12),
    # NVIDIA A100 80GB SXM datasheet: 2,039 GB/s, 312 dense BF16 TFLOP/s.
    "a100": Gpu(80e9, 2.039e12, 312e12),
    # NVIDIA L4 datasheet: 24 GB, 300 GB/s, 242 FP16 TFLOP/s with sparsity, half of it dense.
    "l4": Gpu(24e9, 0.3e12, 121e12),
    # NVIDIA T4 datasheet: 16 GB, 320 GB/s (peak), 65 FP16 TFLOP/s.
    "t4": Gpu(16e9, 0.32e12, 65e12),
}


@dataclass(frozen=True)
class ModelShape:
    """A Llama-architecture model by its config, as in the checkpoint's config.json."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied_embeddings: bool = False

    @property
    def matrix_parameters(self) -> int:
        """Weights that every step reads: all projections and the output head, without the input embedding."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate) + self.hidden * self.vocabulary

    @property
    def parameters(self) -> int:
        """Weights in memory, norms aside."""
        return self.matrix_parameters + (0 if self.tied_embeddings else self.hidden * self.vocabulary)

    @property
    def kv_bytes_per_token(self) -> int:
        """K/V memory that one token takes: a key and a value in every layer."""
        return 2 * self.layers * self.kv_heads * self.head_dim * BYTES_PER_VALUE


MODELS = {
    # config.json of meta-llama/Llama-2-7b-hf (Touvron et al., 2023).
    "llama-2-7b": ModelShape(32, 4096, 32, 32, 128, 11008, 32000),
    # config.json of meta-llama/Llama-3.1-8B (Grattafiori et al., 2024): grouped-query attention.
    "llama-3.1-8b": ModelShape(32, 4096, 32, 8, 128, 14336, 128256),
    # config.json of TinyLlama/TinyLlama-1.1B-Chat-v1.0 (Zhang et al., 2024): for cards of 16 GB and less.
    "tinyllama-1.1b": ModelShape(22, 2048, 32, 4, 64, 5632, 32000),
    # config.json of HuggingFaceTB/SmolLM2-135M-Instruct.
    "smollm2-135m": ModelShape(30, 576, 9, 3, 64, 1536, 49152, tied_embeddings=True),
}


@dataclass(frozen=True)
class Hardware:
    """A model on a card.

    Attributes:
        gpu, model: see `Gpu` and `ModelShape`.
        bandwidth_share: share of the datasheet's bandwidth that is reached. 0.9 is a device-to-device copy on
            an H100 (3.03 of 3.35 TB/s, measured).
        compute_share: share of the datasheet's FLOP/s that a prompt's matrix products reach. 0.6 is an
            assumption.
        launch: seconds a step takes beside the matrix products and K/V reads. 1 ms is an assumption, near
            what vLLM 0.25.1 needed on an H100 with Llama-2-7B shapes and one sequence.
        name: such as "h100:llama-2-7b", for errors.
    """

    gpu: Gpu
    model: ModelShape
    bandwidth_share: float = 0.9
    compute_share: float = 0.6
    launch: float = 1e-3
    name: str = ""

    @classmethod
    def parse(cls, spec: str) -> Hardware:
        """Read "h100:llama-2-7b". Raises `CourseError` that lists the known cards and models."""
        gpu, _, model = spec.lower().partition(":")
        if gpu not in GPUS or model not in MODELS:
            raise CourseError(
                f"unknown hardware {spec!r}: write GPU:MODEL with one of {', '.join(GPUS)} "
                f"and one of {', '.join(MODELS)}"
            )
        return cls(GPUS[gpu], MODELS[model], name=spec.lower())

    def num_blocks(self, block_size: int = 16, memory_share: float = 0.9) -> int:
        """K/V blocks that fit beside the weights in `memory_share` of the card, the null block included.

        0.9 was vLLM's default `gpu_memory_utilization` for years; 0.32 has 0.92. Raises `CourseError` if fewer than
        two blocks fit.
        """
        room = self.gpu.memory * memory_share - self.model.parameters * BYTES_PER_VALUE
        blocks = int(room // (block_size * self.model.kv_bytes_per_token))
        if blocks < 2:
            raise CourseError(
                f"{self.name or 'this model'} leaves no room for K/V: use a larger card or a smaller model"
            )
        return blocks


@dataclass(frozen=True)
class CostModel:
    """Seconds a step takes, from the tokens in it; the module's docstring has the formula.

    Attributes:
        launch: seconds that every step takes.
        weights: seconds to read the weights once.
        per_prefill_token: seconds of compute for each prompt token.
        per_kv_token: seconds for each token of K/V that attention reads.
        per_decode_row: seconds of compute for each request that decodes, beside the K/V it reads.
        hidden_compute: seconds of compute that are hidden behind reading the weights.
    """

    launch: float
    weights: float
    per_prefill_token: float
    per_kv_token: float
    per_decode_row: float = 0.0
    hidden_compute: float = 0.0

    @classmethod
    def from_hardware(cls, hardware: Hardware | str) -> CostModel:
        """A model on a card: bytes over bandwidth, and two FLOP a weight for each prompt token."""
        machine = Hardware.parse(hardware) if isinstance(hardware, str) else hardware
        bandwidth = machine.gpu.bandwidth * machine.bandwidth_share
        flops = machine.gpu.flops * machine.compute_share
        return cls(
            launch=machine.launch,
            weights=machine.model.matrix_parameters * BYTES_PER_VALUE / bandwidth,
            per_prefill_token=2 * machine.model.matrix_parameters / flops,
            per_kv_token=machine.model.kv_bytes_per_token / bandwidth,
        )

    @classmethod
    def fit(cls, first: Trace, *more: Trace) -> CostModel:
        """Least squares of each step's relative error over measured Traces, with no coefficient below 0.

        The two fixed costs of a step cannot be told apart: `launch` is their sum, and `weights` is 0.
        `hidden_compute` is the best of those that step sizes of the Traces suggest.

        Raises:
            CourseError: for a Trace whose clock is not seconds, and for fewer than 5 steps with a running request.
        """
        traces = (first, *more)
        for trace in traces:
            if trace.header.clock != "seconds":
                raise CourseError(f"cannot fit a Trace in {trace.header.clock}: measure one in seconds")
        busy = np.concatenate([trace.steps["running"] > 0 for trace in traces])
        if busy.sum() < 5:
            raise CourseError(f"cannot fit {int(busy.sum())} steps: measure at least 5")
        prompts, rows, kv = (
            np.concatenate([count(trace) for trace in traces])[busy]
            for count in (prefill_tokens, decode_rows, kv_tokens)
        )
        took = np.concatenate([trace.steps["duration"] for trace in traces])[busy]
        # Errors are relative to the time a step is expected to take. Relative to the time it took, a step that was
        # delayed would hardly count, and the sum would come out too small.
        rough = cls._fit_best(prompts, rows, kv, took, np.full_like(took, took.mean()))
        expected = np.maximum(rough._step_seconds(prompts, rows, kv), LEAST_EXPECTED * took.mean())
        return cls._fit_best(prompts, rows, kv, took, expected)

    @classmethod
    def _fit_best(
        cls, prompts: Column, rows: Column, kv: Column, took: Column, expected: Column
    ) -> CostModel:
        """The best of the fits in which steps up to some size hide all their compute, for each size in turn.

        No more compute is hidden than the fixed cost of a step. Otherwise the fit could explain a few slow steps of
        the largest size by expensive rows whose cost is hidden at all other sizes.
        """
        sizes = np.unique(np.quantile(prompts + rows, np.linspace(0, 0.95, SIZES_TRIED), method="nearest"))
        fits = [cls._fit_above(size, prompts, rows, kv, took, expected) for size in (0, *sizes)]

        def misfit(fit: CostModel) -> float:
            error = (fit._step_seconds(prompts, rows, kv) - took) / expected
            return round(
                float(np.square(error).sum()), 12
            )  # rounded, so that of equal fits the simplest wins

        return min((fit for fit in fits if fit.hidden_compute <= fit.launch), key=misfit)

    @classmethod
    def _fit_above(
        cls, size: int, prompts: Column, rows: Column, kv: Column, took: Column, expected: Column
    ) -> CostModel:
        """The fit in which steps of up to `size` tokens hide all their compute, and larger ones the same amount."""
        shown = prompts + rows > size
        hidden = -1.0 * shown * (size > 0)
        columns = np.column_stack([np.ones_like(took), shown * prompts, kv, shown * rows, hidden])
        launch, prefill, per_kv, row, hidden_compute = _non_negative_fit(
            columns / expected[:, None], took / expected
        )
        return cls(launch, 0.0, prefill, per_kv, row, hidden_compute)

    def decode_parts_ms(self, riders: Sequence[int], context: int) -> dict[str, np.ndarray]:
        """What a decode step of so many requests, each with `context` tokens, is made of.

        Arithmetic shows only beyond the time in which the weights are read. A row that decodes counts as a prompt
        token: it goes through the same matrices.

        Returns:
            part → milliseconds, float64 `[len(riders)]`; the first two are the same for all.
        """
        rows = np.asarray(riders, np.float64)
        seconds = {
            "weights": np.full_like(rows, self.weights),
            "all else": np.full_like(rows, self.launch),
            "K/V": self.per_kv_token * context * rows,
            "arithmetic": np.maximum(0.0, self.per_prefill_token * rows - self.weights),
        }
        return {name: 1000 * part for name, part in seconds.items()}

    def seconds(self, plan: StepPlan) -> float:
        """Seconds that the planned step takes."""
        prompts = kv = 0
        for row in plan.prefills:
            prompts += row.num_scheduled_tokens
            kv += row.num_computed_tokens + row.num_scheduled_tokens
        for row in plan.decodes:
            kv += row.num_computed_tokens + 1
        compute = self.per_prefill_token * prompts + self.per_decode_row * len(plan.decodes)
        shown = max(0.0, compute - self.hidden_compute)
        return self.launch + self.weights + shown + self.per_kv_token * kv

    def predict(self, trace: Trace) -> np.ndarray:
        """Seconds that each step of a Trace would take by this model, float64 `[num_steps]`."""
        return self._step_seconds(prefill_tokens(trace), decode_rows(trace), kv_tokens(trace))

    def _step_seconds(self, prompts: np.ndarray, rows: np.ndarray, kv: np.ndarray) -> np.ndarray:
        compute = self.per_prefill_token * prompts + self.per_decode_row * rows
        shown = np.maximum(0.0, compute - self.hidden_compute)
        return self.launch + self.weights + shown + self.per_kv_token * kv


def _non_negative_fit(columns: np.ndarray, target: np.ndarray) -> list[float]:
    """Least squares without the columns whose coefficient would be negative, removed one by one, the worst first."""
    scale = np.abs(columns).max(axis=0)
    used = np.flatnonzero(scale > 0)
    while len(used):
        answer, *_ = np.linalg.lstsq(columns[:, used] / scale[used], target, rcond=None)
        if answer.min() >= 0:
            break
        used = np.delete(used, answer.argmin())
    fitted = np.zeros(columns.shape[1])
    if len(used):
        fitted[used] = answer / scale[used]
    return fitted.tolist()
