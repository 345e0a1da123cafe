"""What one step is to do. The scheduler writes a `StepPlan`; the data plane reads it, and never the scheduler."""

from __future__ import annotations

from dataclasses import dataclass, field

from lessonlib.scheduling.kv_cache import Copy
from lessonlib.scheduling.request import RequestState


@dataclass(slots=True)
class ScheduledRequest:
    """One request's share of a step.

    Attributes:
        request: its state; `request.token_ids[num_computed_tokens:][:num_scheduled_tokens]` are the inputs,
            where token ids are known.
        slot: the slot it rides in.
        num_computed_tokens: tokens already stored before this step: the position of the first input.
        num_scheduled_tokens: tokens to compute in this step.
        block_table: its blocks, in order of position. It grows at its end as the request does; read, do not
            change.
        is_prefill: whether it is reading tokens that it boarded with.
        yields_token: whether the last of its tokens is to be sampled from.
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
        budget: tokens that were left over.
        decodes, prefills: the requests that compute something. Decodes have one token each.
        boarded, resumed: requests that boarded in this step for the first time, or again after a preemption.
            `request.num_cached_tokens` says how much of each was found in the prefix cache.
        preempted, vacated: requests thrown out in this step, and the slots they had. They hold no blocks any
            more.
        copies: (source, destination) blocks to copy before the step runs.
        waiting, running, free_blocks: counts after boarding.
    """

    step: int
    budget: int
    decodes: list[ScheduledRequest] = field(default_factory=list)
    prefills: list[ScheduledRequest] = field(default_factory=list)
    boarded: list[RequestState] = field(default_factory=list)
    resumed: list[RequestState] = field(default_factory=list)
    preempted: list[RequestState] = field(default_factory=list)
    vacated: list[int] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    waiting: int = 0
    running: int = 0
    free_blocks: int = 0

    @property
    def scheduled(self) -> list[ScheduledRequest]:
        """Everyone's share of the step, decodes first."""
        return self.decodes + self.prefills

    @property
    def num_tokens(self) -> int:
        """Tokens that the step computes."""
        return len(self.decodes) + sum(row.num_scheduled_tokens for row in self.prefills)

    @property
    def sampled_rows(self) -> list[ScheduledRequest]:
        """The rows that get a token from this step, in order of `scheduled`."""
        return [row for row in self.scheduled if row.yields_token]

    @property
    def sampled_ids(self) -> list[str]:
        """The requests that get a token from this step, in order of `scheduled`."""
        return [row.request.id for row in self.sampled_rows]
