"""From a plan to a batch: the index tensors that one forward pass needs, and buffers for them that stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from lessonlib.scheduling.plan import ScheduledRequest

NO_KV_SLOT = -1


@dataclass(frozen=True)
class StepShape:
    """How many rows of one token, chunks of prompts, and tokens of these a step has room for."""

    num_decodes: int
    num_prompts: int = 0
    prompt_tokens: int = 0

    @property
    def num_tokens(self) -> int:
        return self.num_decodes + self.prompt_tokens

    @property
    def num_seqs(self) -> int:
        return self.num_decodes + self.num_prompts

    def holds(self, inputs: StepInputs) -> bool:
        return (
            inputs.num_decodes <= self.num_decodes
            and inputs.num_seqs - inputs.num_decodes <= self.num_prompts
            and inputs.num_tokens - inputs.num_decodes <= self.prompt_tokens
        )


@dataclass(frozen=True)
class StepInputs:
    """One step's inputs, rows in the plan's order: decodes first, then chunks of prompts. All int32.

    Attributes:
        num_decodes: rows of one token each, at the front.
        token_ids: `[num_tokens]`; -1 - slot stands for the token that the device gave that slot last and the
            host has not seen yet.
        positions: `[num_tokens]`.
        slot_mapping: `[num_tokens]`, block id × block size + offset: where each token's K/V goes; -1: nowhere.
        seq_lens: `[num_seqs]`, this step's tokens included.
        query_start_loc: `[num_seqs + 1]`: row i has tokens query_start_loc[i] … query_start_loc[i + 1] - 1.
        sampled: `[num_sampled]`, the tokens whose logits are sampled from: the last one of a row that yields.
        slots: `[num_sampled]`, the slot that each sampled token is for.
        block_table: `[num_seqs, most blocks]`, padded with the null block.
    """

    num_decodes: int
    token_ids: Tensor
    positions: Tensor
    slot_mapping: Tensor
    seq_lens: Tensor
    query_start_loc: Tensor
    sampled: Tensor
    slots: Tensor
    block_table: Tensor

    @classmethod
    def of(cls, rows: Sequence[ScheduledRequest], block_size: int) -> StepInputs:
        """Flatten the rows into one batch without padding, on the CPU."""
        tokens, positions, slots = list[int](), list[int](), list[int]()
        for row in rows:
            tokens += _tokens_of(row)
            reach = range(row.num_computed_tokens, row.seq_len)
            positions += reach
            slots += [row.block_table[at // block_size] * block_size + at % block_size for at in reach]
        starts = list(accumulate((row.num_scheduled_tokens for row in rows), initial=0))
        yields = [index for index, row in enumerate(rows) if row.yields_token]
        return cls(
            num_decodes=sum(not row.is_prefill for row in rows),
            token_ids=_int32(tokens),
            positions=_int32(positions),
            slot_mapping=_int32(slots),
            seq_lens=_int32([row.seq_len for row in rows]),
            query_start_loc=_int32(starts),
            sampled=_int32([starts[index + 1] - 1 for index in yields]),
            slots=_int32([rows[index].slot for index in yields]),
            block_table=_table([row.block_table for row in rows]),
        )

    def padded(self, shape: StepShape, spare_slot: int) -> StepInputs:
        """The same step with empty rows behind its decodes and behind its prompts, up to a shape that holds it.

        An empty row has length 0 and stores nothing. Tokens are sampled for it as well; they go to `spare_slot`.
        """
        decodes = self.num_decodes
        gap, rows = shape.num_decodes - decodes, shape.num_seqs - self.num_seqs
        rows, tokens = rows - gap, shape.num_tokens - self.num_tokens - gap
        unsampled = shape.num_seqs - len(self.sampled)

        def filled(values: Tensor, empty: int, behind: int) -> Tensor:
            between = values.new_full((gap, *values.shape[1:]), empty)
            last = values.new_full((behind, *values.shape[1:]), empty)
            return torch.cat((values[:decodes], between, values[decodes:], last))

        starts = self.query_start_loc[decodes:] + gap
        first = torch.arange(shape.num_decodes, dtype=torch.int32)
        moved = torch.where(self.sampled < decodes, self.sampled, self.sampled + gap)
        return StepInputs(
            num_decodes=shape.num_decodes,
            token_ids=filled(self.token_ids, 0, tokens),
            positions=filled(self.positions, 0, tokens),
            slot_mapping=filled(self.slot_mapping, NO_KV_SLOT, tokens),
            seq_lens=filled(self.seq_lens, 0, rows),
            query_start_loc=torch.cat((first, starts, starts[-1:].expand(rows))),
            sampled=F.pad(moved, (0, unsampled)),
            slots=F.pad(self.slots, (0, unsampled), value=spare_slot),
            block_table=filled(self.block_table, 0, rows),
        )

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_seqs(self) -> int:
        return len(self.seq_lens)


def _tokens_of(row: ScheduledRequest) -> list[int]:
    known = row.request.token_ids
    assert known is not None, "an engine's requests come with token ids"
    tokens = known[row.num_computed_tokens : row.seq_len]
    # What is missing at the end is the token of the step in flight.
    return tokens if len(tokens) == row.num_scheduled_tokens else [*tokens, -1 - row.slot]


def _int32(values: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.array(values, np.int32))


def _table(tables: Sequence[list[int]]) -> Tensor:
    widest = max(map(len, tables), default=0)
    padded = np.zeros((len(tables), widest), np.int32)
    for row, table in zip(padded, tables, strict=True):
        row[: len(table)] = table
    return torch.from_numpy(padded)


class InputBuffers:
    """A step's inputs on the GPU, always at the same addresses, so that a CUDA graph finds them.

    They are written with one copy from pinned memory. Two such stages take turns: the next step's inputs can
    be prepared while the copy of this step's is still to run.

    Args:
        max_tokens, max_seqs, max_blocks: the largest step: its tokens, its rows, the blocks of a row.
    """

    def __init__(self, max_tokens: int, max_seqs: int, max_blocks: int, device: torch.device) -> None:
        self.shapes = {
            **dict.fromkeys(("token_ids", "positions", "slot_mapping"), (max_tokens,)),
            **dict.fromkeys(("seq_lens", "sampled", "slots"), (max_seqs,)),
            "query_start_loc": (max_seqs + 1,),
            "block_table": (max_seqs, max_blocks),
        }
        size = sum(int(np.prod(shape)) for shape in self.shapes.values())
        self._there = torch.zeros(size, dtype=torch.int32, device=device)
        stages = [torch.zeros(size, dtype=torch.int32, pin_memory=True) for _ in range(2)]
        self._device_views = self._views(self._there)
        self._stages = [(stage, self._views(stage)) for stage in stages]

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        parts = flat.split([int(np.prod(shape)) for shape in self.shapes.values()])
        return {
            name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def load(self, inputs: StepInputs) -> StepInputs:
        """Copy to the GPU, without waiting for it."""
        stage, views = self._stages[0]
        self._stages.reverse()
        there = {}
        for name in self.shapes:
            tensor = getattr(inputs, name)
            views[name][tuple(map(slice, tensor.shape))] = tensor
            there[name] = self._device_views[name][: len(tensor)]
        self._there.copy_(stage, non_blocking=True)
        return StepInputs(inputs.num_decodes, **there)
