"""The data plane: computes a scheduler's plans with a real model over paged K/V.

`launch` starts a step and returns at once on a GPU; `PendingStep.result` waits for its tokens. Between the two
the host plans the next step: a token that is sampled stays on the device, by slot, where the next step's
decode finds it. A step is replayed as a CUDA graph, padded to the smallest shape that holds it and has one; only
a step with many prompts, or many tokens of them, is launched kernel by kernel, and the card is then too busy to notice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kernels.tier import has_triton
from lessonlib.engine.inputs import InputBuffers, StepInputs, StepShape
from lessonlib.engine.model import Attend, Llama
from lessonlib.engine.sampler import Draw, sample, top_logprobs
from lessonlib.errors import CourseError
from lessonlib.scheduling.plan import ScheduledRequest, StepPlan
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.trace import Trace

MIXED_DECODES = 64  # decodes by which graphs of mixed steps differ
MIXED_TOKENS = (64, 256)  # tokens of prompts that they take
MIXED_PROMPTS = 16  # in how many prompts


@dataclass(frozen=True)
class Sampling:
    """How to sample a step: a `Draw` for each of `plan.sampled_ids`, and how many log probabilities to report.

    `logprobs` is None where no request asked for any.
    """

    draws: Sequence[Draw]
    logprobs: int | None = None

    @property
    def is_greedy(self) -> bool:
        return all(draw.params.is_greedy and draw.edit is None for draw in self.draws)


@dataclass
class PendingStep:
    """A step that was launched.

    Attributes:
        ids: the requests that get a token, in order.
        tokens: int `[num_sampled]` in host memory, valid once `event` has happened (None: already).
        logprobs: `top_logprobs` of the step on the host, where they were asked for.
    """

    ids: list[str]
    tokens: Tensor | None = None
    event: torch.cuda.Event | None = None
    logprobs: tuple[Tensor, ...] | None = None

    def result(self) -> dict[str, int]:
        """Wait, and give each request's token by request id."""
        if self.event is not None:
            self.event.synchronize()
        return {} if self.tokens is None else dict(zip(self.ids, self.tokens.tolist(), strict=True))


class ModelRunner:
    """Computes plans on a model.

    Args:
        model: the weights; its device and operators are the runner's.
        num_blocks, block_size: of the K/V cache; the scheduler's own.
        max_num_seqs: slots, at least as many as the scheduler has.
        max_num_batched_tokens, max_model_len: the largest step and sequence; needed for graphs' buffers.
        use_graphs: replay steps as CUDA graphs.
        check: raise `CourseError` where a logit is not a number (a poisoned block was read). Waits for
            each step.

    Attributes:
        kv_tensor: `[num_layers, num_blocks, block_size, 2, num_kv_heads, head_dim]`, keys before values.
    """

    def __init__(
        self,
        model: Llama,
        num_blocks: int,
        block_size: int,
        max_num_seqs: int = 256,
        max_num_batched_tokens: int = 8192,
        max_model_len: int | None = None,
        use_graphs: bool = False,
        check: bool = False,
    ) -> None:
        self.model, self.block_size, self.check = model, block_size, check
        config, device = model.config, model.device
        shape = (config.num_layers, num_blocks, block_size, 2, config.num_kv_heads, config.head_dim)
        self.kv_tensor = torch.zeros(shape, dtype=model.dtype, device=device)
        self._spare_slot = max_num_seqs
        self._last_tokens = torch.zeros(max_num_seqs + 1, dtype=torch.int64, device=device)
        self._workspace = None
        self._buffers: InputBuffers | None = None
        self._graphs: list[StepGraph] = []
        shapes = graph_shapes(max_num_seqs) if use_graphs else []
        if device.type == "cuda":
            if has_triton():
                from kernels.attention import make_workspace

                heads = (config.num_heads, config.num_kv_heads, config.head_dim)
                self._workspace = make_workspace(*heads, model.dtype, device)
            longest = max_model_len or config.max_positions
            blocks = -(-longest // block_size)
            tokens = max(max_num_batched_tokens, max_num_seqs, *(shape.num_tokens for shape in shapes))
            self._buffers = InputBuffers(tokens, max_num_seqs + MIXED_PROMPTS, blocks, device)
        self._capture(shapes)

    # ----- a step -----

    def launch(self, plan: StepPlan, sampling: Sampling | None = None) -> PendingStep:
        """Start computing a plan; without `sampling` each row gets the token with the largest logit."""
        self._copy_blocks(plan.copies)
        rows = plan.scheduled
        if not rows:
            return PendingStep([])
        with torch.inference_mode():
            logits, tokens, slots = self._compute(rows, plan)
            if self.check:
                check_logits(logits, plan.sampled_rows)
            if sampling is not None and not sampling.is_greedy:
                tokens = sample(logits, sampling.draws, self.model.ops.sample)
                self._last_tokens[slots] = tokens
            wanted = sampling.logprobs if sampling else None
            logprobs = None if wanted is None else top_logprobs(logits, tokens, wanted)
        return self._pending(plan.sampled_ids, tokens, logprobs)

    def run(self, plan: StepPlan) -> dict[str, int]:
        """Compute a plan greedily and wait: the next token of each request that it samples."""
        return self.launch(plan).result()

    def _compute(self, rows: Sequence[ScheduledRequest], plan: StepPlan) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, their argmax and slots of the rows that yield a token."""
        inputs = StepInputs.of(rows, self.block_size)
        count = len(inputs.slots)
        graph = self._graph_for(inputs)
        inputs = self.load(inputs, graph.shape if graph else None)
        logits, tokens = graph.replay() if graph else self.forward(inputs)
        return logits[:count], tokens[:count], inputs.slots[:count]

    def load(self, inputs: StepInputs, shape: StepShape | None = None) -> StepInputs:
        """The inputs where the model is, padded to `shape` if there is one."""
        if shape is not None:
            inputs = inputs.padded(shape, self._spare_slot)
        return inputs if self._buffers is None else self._buffers.load(inputs)

    def forward(self, inputs: StepInputs) -> tuple[Tensor, Tensor]:
        """Logits `[num_sampled, vocab_size]` and their argmax, which are also kept by slot."""
        pending = inputs.token_ids < 0
        slots = torch.where(pending, -1 - inputs.token_ids, self._spare_slot)
        token_ids = torch.where(pending, self._last_tokens[slots], inputs.token_ids)
        hidden = self.model.forward(token_ids, self._attend(inputs))
        logits = self.model.logits(hidden[inputs.sampled])
        tokens = self.model.ops.argmax(logits)
        self._last_tokens[inputs.slots] = tokens
        return logits, tokens

    def _attend(self, inputs: StepInputs) -> Attend:
        ops, config, cos_sin = self.model.ops, self.model.config, self.model.cos_sin
        if ops.step_attention is not None:
            return ops.step_attention(inputs, self.kv_tensor, cos_sin, config.num_heads)
        assert ops.rotary_write_kv is not None
        assert ops.paged_attention is not None
        rotate_and_store, paged_attention = ops.rotary_write_kv, ops.paged_attention
        kinds = [config.num_heads, config.num_kv_heads, config.num_kv_heads]

        def attend(layer: int, heads: Tensor) -> Tensor:
            query, key, value = heads.split(kinds, dim=1)
            caches = self.kv_tensor[layer].unbind(2)
            rotate_and_store(query, key, value, inputs.positions, cos_sin, *caches, inputs.slot_mapping)
            return paged_attention(
                query,
                *caches,
                inputs.block_table,
                inputs.seq_lens,
                inputs.query_start_loc,
                scale=config.head_dim**-0.5,
                num_decodes=inputs.num_decodes,
                workspace=self._workspace,
            )

        return attend

    def _pending(self, ids: list[str], tokens: Tensor, logprobs: tuple[Tensor, ...] | None) -> PendingStep:
        if not tokens.is_cuda:
            return PendingStep(ids, tokens, None, logprobs)
        on_host = [_to_host(part) for part in (tokens, *(logprobs or ()))]
        event = torch.cuda.Event()
        event.record()
        return PendingStep(ids, on_host[0], event, tuple(on_host[1:]) if logprobs else None)

    # ----- memory -----

    def poison(self, blocks: Sequence[int]) -> None:
        """Fill blocks with NaN, so that a row that reads them shows."""
        with torch.inference_mode():
            self.kv_tensor[:, list(blocks)] = torch.nan

    def _copy_blocks(self, copies: Sequence[tuple[int, int]]) -> None:
        with torch.inference_mode():
            for source, destination in copies:
                self.kv_tensor[:, destination] = self.kv_tensor[:, source]

    # ----- graphs -----

    def _graph_for(self, inputs: StepInputs) -> StepGraph | None:
        return next((graph for graph in self._graphs if graph.shape.holds(inputs)), None)

    def _capture(self, shapes: Sequence[StepShape]) -> None:
        """A graph for each shape, largest first, so that the smaller ones fit into its memory."""
        if not shapes:
            return
        assert self._buffers is not None, "graphs are CUDA's"
        pool = torch.cuda.graph_pool_handle()
        empty = StepInputs.of([], self.block_size)
        with torch.inference_mode():
            for shape in reversed(shapes):
                inputs = self.load(empty, shape)
                self._graphs.insert(0, StepGraph.capture(self.forward, shape, inputs, pool))


def _to_host(tensor: Tensor) -> Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def graph_sizes(max_num_seqs: int) -> list[int]:
    """Batch sizes that get a graph, ascending: 1, 2, 4, then every eighth, and the largest."""
    sizes = [1, 2, 4, *range(8, max_num_seqs, 8)]
    return [size for size in sizes if size < max_num_seqs] + [max_num_seqs]


def graph_shapes(max_num_seqs: int) -> list[StepShape]:
    """Shapes of steps that get a graph, by their tokens, ascending: decodes alone, and few prompts beside decodes."""
    alone = [StepShape(size) for size in graph_sizes(max_num_seqs)]
    beside = [size for size in (8, *range(MIXED_DECODES, max_num_seqs, MIXED_DECODES)) if size < max_num_seqs]
    mixed = [
        StepShape(size, MIXED_PROMPTS, tokens) for size in (*beside, max_num_seqs) for tokens in MIXED_TOKENS
    ]
    return sorted(alone + mixed, key=lambda shape: shape.num_tokens)


@dataclass
class StepGraph:
    """A step of one shape, recorded once and replayed with whatever its buffers hold."""

    shape: StepShape
    graph: torch.cuda.CUDAGraph = field(repr=False)
    outputs: tuple[Tensor, Tensor] = field(repr=False)

    @classmethod
    def capture(
        cls,
        forward: Callable[[StepInputs], tuple[Tensor, Tensor]],
        shape: StepShape,
        inputs: StepInputs,
        pool: Any,
    ) -> StepGraph:
        """Record `forward` of padding alone, after a run that compiles what is still to be compiled.

        Nothing depends on the rows but what is computed.
        """
        forward(inputs)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            outputs = forward(inputs)
        return cls(shape, graph, outputs)

    def replay(self) -> tuple[Tensor, Tensor]:
        """Logits and tokens, valid until the next replay of any graph of the pool."""
        self.graph.replay()
        return self.outputs


def check_logits(logits: Tensor, rows: Sequence[ScheduledRequest]) -> None:
    """Raise `CourseError` where a row of `[num_rows, vocab_size]` is not a number: it read a poisoned block."""
    for row, broken in zip(rows, logits.isnan().any(-1).tolist(), strict=True):
        if broken:
            raise CourseError(
                f"request {row.id!r} read a block that was free (its table: {row.block_table}): "
                "look for a block that was freed while a table still pointed at it"
            )


def ride_model(
    runner: ModelRunner,
    scheduler: Scheduler,
    prompts: Mapping[str, Sequence[int]],
    max_tokens: Mapping[str, int],
    before_step: Callable[[StepPlan], object] = lambda plan: None,
) -> tuple[dict[str, list[int]], Trace]:
    """Answer prompts greedily with a scheduler and a real model: schedule, run, update, until everyone is home.

    Args:
        prompts, max_tokens: token ids and the longest answer, by request id. All wait at the start, in order.
        before_step: looks at each plan before it is run.

    Returns:
        Output token ids by request id (an end-of-sequence token included), and the Trace, in steps.
    """
    outputs: dict[str, list[int]] = {name: [] for name in prompts}
    for name, ids in prompts.items():
        scheduler.add_request(name, ids, max_tokens[name])
    while scheduler.has_unfinished:
        step_model(runner, scheduler, outputs, before_step)
    return outputs, scheduler.build_trace()


def step_model(
    runner: ModelRunner,
    scheduler: Scheduler,
    outputs: Mapping[str, list[int]],
    before_step: Callable[[StepPlan], object] = lambda plan: None,
) -> None:
    """One step: plan it, run it, add each new token to its list in `outputs`, and report."""
    plan = scheduler.schedule()
    before_step(plan)
    sampled = runner.run(plan)
    for name, token in sampled.items():
        outputs[name].append(token)
    ended = [name for name, token in sampled.items() if token in runner.model.config.eos_token_ids]
    scheduler.update(plan, sampled, ended)
