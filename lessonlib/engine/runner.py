"""From a StepPlan to tensors: what the scheduler decided, computed by a real model over paged K/V."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from kernels import reference
from lessonlib.engine.model import Attend, Llama
from lessonlib.errors import CourseError
from lessonlib.scheduling.scheduler import ScheduledRequest, Scheduler, StepPlan
from lessonlib.trace import Trace

PagedAttention = Callable[..., Tensor]
"""Same signature as `kernels.reference.paged_attention`."""


@dataclass(frozen=True)
class StepInputs:
    """One step's inputs, rows in the plan's order (decodes first).

    Attributes:
        token_ids, positions: int64 `[num_tokens]`.
        slot_mapping: int64 `[num_tokens]`: block id × block size + place, where each token's K/V goes.
        block_table: int32 `[num_seqs, most blocks]`, padded with the null block.
        seq_lens: int32 `[num_seqs]`, this step's tokens included.
        query_start_loc: int32 `[num_seqs + 1]`: row i has tokens query_start_loc[i] … query_start_loc[i + 1] - 1.
    """

    token_ids: Tensor
    positions: Tensor
    slot_mapping: Tensor
    block_table: Tensor
    seq_lens: Tensor
    query_start_loc: Tensor

    @classmethod
    def of(cls, rows: Sequence[ScheduledRequest], block_size: int) -> StepInputs:
        """Flatten the rows into one batch without padding."""
        tokens, positions, slots = list[int](), list[int](), list[int]()
        for row in rows:
            assert row.request.token_ids is not None
            reach = range(row.num_computed_tokens, row.seq_len)
            tokens += row.request.token_ids[row.num_computed_tokens : row.seq_len]
            positions += reach
            slots += [row.block_table[at // block_size] * block_size + at % block_size for at in reach]
        widest = max(len(row.block_table) for row in rows)
        table = [row.block_table + [0] * (widest - len(row.block_table)) for row in rows]
        starts = list(accumulate((row.num_scheduled_tokens for row in rows), initial=0))
        return cls(
            torch.tensor(tokens),
            torch.tensor(positions),
            torch.tensor(slots),
            torch.tensor(table, dtype=torch.int32),
            torch.tensor([row.seq_len for row in rows], dtype=torch.int32),
            torch.tensor(starts, dtype=torch.int32),
        )


class PagedRunner:
    """Computes plans on a model, greedily.

    Args:
        model: the weights.
        num_blocks, block_size: of the K/V cache; the scheduler's own.
        attention: computes a mixed batch over paged K/V.

    Attributes:
        key_cache, value_cache: `[num_layers, num_blocks, block_size, num_kv_heads, head_dim]`.
    """

    def __init__(
        self,
        model: Llama,
        num_blocks: int,
        block_size: int,
        attention: PagedAttention = reference.paged_attention,
    ) -> None:
        self.model, self.block_size, self.attention = model, block_size, attention
        config = model.config
        shape = (config.num_layers, num_blocks, block_size, config.num_kv_heads, config.head_dim)
        self.key_cache = torch.zeros(shape, dtype=model.dtype, device=model.device)
        self.value_cache = torch.zeros_like(self.key_cache)

    def poison(self, blocks: Sequence[int]) -> None:
        """Fill blocks with NaN: whoever reads them gives itself away."""
        self.key_cache[:, list(blocks)] = torch.nan
        self.value_cache[:, list(blocks)] = torch.nan

    def run(self, plan: StepPlan) -> dict[str, int]:
        """The next token of each request that the plan samples, by request id."""
        for source, destination in plan.copies:
            self.key_cache[:, destination] = self.key_cache[:, source]
            self.value_cache[:, destination] = self.value_cache[:, source]
        rows = plan.scheduled
        if not rows:
            return {}
        inputs = StepInputs.of(rows, self.block_size)
        with torch.inference_mode():
            hidden = self.model.forward(inputs.token_ids, inputs.positions, self._attend(inputs))
            last = hidden[inputs.query_start_loc[1:].long() - 1]
            logits = self.model.logits(last)
            check_logits(logits, rows)
            tokens = logits.argmax(-1).tolist()
        return {row.id: token for row, token in zip(rows, tokens, strict=True) if row.yields_token}

    def _attend(self, inputs: StepInputs) -> Attend:
        scale = self.model.config.head_dim**-0.5

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys, values = self.key_cache[layer], self.value_cache[layer]
            reference.write_kv(key, value, keys, values, inputs.slot_mapping)
            return self.attention(
                query, keys, values, inputs.block_table, inputs.seq_lens, inputs.query_start_loc, scale=scale
            )

        return attend


def check_logits(logits: Tensor, rows: Sequence[ScheduledRequest]) -> None:
    """Raise `CourseError` where a row of `[num_rows, vocab_size]` is not a number: it read a poisoned block."""
    for row, broken in zip(rows, logits.isnan().any(-1).tolist(), strict=True):
        if broken:
            raise CourseError(
                f"request {row.id!r} read a block that was free (its table: {row.block_table}): "
                "look for a block that was freed while a table still pointed at it"
            )


def ride_model(
    runner: PagedRunner,
    scheduler: Scheduler,
    prompts: Mapping[str, Sequence[int]],
    max_tokens: Mapping[str, int],
    before_step: Callable[[StepPlan], object] = lambda plan: None,
) -> tuple[dict[str, list[int]], Trace]:
    """Answer prompts with a scheduler and a real model: schedule, run, update, until everyone is home.

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
    runner: PagedRunner,
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
