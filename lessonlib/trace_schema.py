"""What a Trace consists of: the kinds of events, the columns, and the header."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from lessonlib import __version__

SCHEMA_VERSION = 2  # 1 had no reasons for waiting: `held_by` and `blocks_short`
NO_SLOT = -1


class Kind(IntEnum):
    """What happened to a request. The order is the order of events within one step."""

    ARRIVE = 0
    REJECT = 1
    PREEMPT = 2
    BOARD = 3
    PREFILL = 4
    DECODE = 5
    FINISH = 6
    ABORT = 7


class HeldBy(IntEnum):
    """Why the request at the head of the queue was not admitted in a step: the first of these that applied.

    NOTHING: no request waits. UNKNOWN: requests wait, and what made the Trace does not record why.
    SLOTS: every slot is taken. BATCH, MORE_REQUESTS, POLICY: a slot is free, and the policy waits for the running
    batch to end, for more requests to wait, or for something else. BUDGET: the step has no tokens left for the
    prompt. BLOCKS: too few K/V blocks are free. PREEMPTION: memory ran short in this step and requests were
    preempted, so none was admitted.
    """

    NOTHING = 0
    UNKNOWN = 1
    SLOTS = 2
    BATCH = 3
    MORE_REQUESTS = 4
    POLICY = 5
    BUDGET = 6
    BLOCKS = 7
    PREEMPTION = 8


EVENT_COLUMNS = ("step", "request", "slot", "kind", "tokens", "blocks")
STEP_COLUMNS = ("start", "duration", "waiting", "running", "free_blocks", "held_by", "blocks_short")
REASON_COLUMNS = STEP_COLUMNS[-2:]  # since schema 2
REQUEST_COLUMNS = ("prompt_tokens", "arrival_time", "priority")
OVERHEARD_COLUMNS = ("step", "request", "other", "blocks")


@dataclass(frozen=True)
class Header:
    """The facts that a reader of the columns needs.

    Attributes:
        slots: how many requests may run at once.
        clock: unit of `start` and `duration`: "steps" (one step is one unit) or "seconds".
        maker: what produced the Trace, e.g. "simulator", "course engine", "vllm".
        policy: name of the scheduling policy.
        block_size: tokens per K/V block; 0 where memory is not modelled.
        num_blocks: K/V blocks in the pool; 0 where memory is not modelled.
        poisoned: whether free blocks were filled with NaN, so that reading one shows.
        versions: of the packages that made it.
        schema: version of this format.
    """

    slots: int
    clock: str = "steps"
    maker: str = "simulator"
    policy: str = ""
    block_size: int = 0
    num_blocks: int = 0
    poisoned: bool = False
    versions: Mapping[str, str] = field(
        default_factory=lambda: {"lessonlib": __version__, "python": platform.python_version()}
    )
    schema: int = SCHEMA_VERSION
