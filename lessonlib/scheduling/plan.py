"""What one step is to do. The scheduler writes a `StepPlan`; the data plane reads it, and never the scheduler."""

from __future__ import annotations

from dataclasses import dataclass, field

from lessonlib.scheduling.kv_cache import Copy
from lessonlib.scheduling.request import RequestState
from lessonlib.trace import HeldBy


@dataclass(slots=True)
class ScheduledRequest:
    """One request's share of a step.

    Attributes:
        request: its state. Where token ids are known, the step's inputs are
            `request.token_ids[num_computed_tokens:][:num_scheduled_tokens]`.
        slot: the request slot it holds.
        num_computed_tokens: tokens stored before this step, which is the position of the first input.
        num_scheduled_tokens: tokens to compute in this step.
        block_table: ids of its K/V blocks, in order of position. The scheduler appends to it as the request grows;
            read it, do not change it.
        is_prefill: whether the tokens are among those it was admitted with, rather than newly sampled.
        yields_token: whether the next token is sampled from the last of these.
    """

    request: RequestState
    slot: int
    num_computed_tokens: int
    num_scheduled_tokens: int
    block_table: list[int]
    is_prefill: bool
    yields_token: bool

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def seq_len(self) -> int:
        """Tokens that attention sees: all up to the last one of this step."""
        return self.num_computed_tokens + self.num_scheduled_tokens


@dataclass(slots=True)
class StepPlan:
    """What one step is to do.

    Attributes:
        step: its number, from 0.
        budget: tokens of the step's budget that were left over.
        decodes, prefills: the requests that compute something. A decode computes one token.
        admitted, resumed: requests admitted in this step for the first time, and again after a preemption.
            `request.num_cached_tokens` tells how much of each was found in the prefix cache.
        preempted, vacated_slots: requests preempted in this step, and the slot that each of them had. They hold no
            blocks any more.
        copies: (source, destination) ids of blocks to copy before the step runs.
        waiting, running: requests, counted after admission.
        free_blocks: K/V blocks, counted after admission.
        held_by: why the first of the waiting requests was not admitted.
        blocks_short: where that is `HeldBy.BLOCKS`, how many blocks were missing, else 0.
    """

    step: int
    budget: int
    decodes: list[ScheduledRequest] = field(default_factory=list)
    prefills: list[ScheduledRequest] = field(default_factory=list)
    admitted: list[RequestState] = field(default_factory=list)
    resumed: list[RequestState] = field(default_factory=list)
    preempted: list[RequestState] = field(default_factory=list)
    vacated_slots: list[int] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    waiting: int = 0
    running: int = 0
    free_blocks: int = 0
    held_by: HeldBy = HeldBy.NOTHING
    blocks_short: int = 0

    @property
    def scheduled(self) -> list[ScheduledRequest]:
        """Every request's share of the step, decodes first."""
        return self.decodes + self.prefills

    @property
    def num_tokens(self) -> int:
        """Tokens that the step computes."""
        return len(self.decodes) + sum(row.num_scheduled_tokens for row in self.prefills)

    @property
    def sampled_rows(self) -> list[ScheduledRequest]:
        """The rows that yield a token, in order of `scheduled`."""
        return [row for row in self.scheduled if row.yields_token]

    @property
    def sampled_ids(self) -> list[str]:
        """Ids of the requests that yield a token, in order of `scheduled`."""
        return [row.request.id for row in self.sampled_rows]
