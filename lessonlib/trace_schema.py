"""What a Trace consists of: the kinds of events, the columns, and the header."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from lessonlib import __version__

SCHEMA_VERSION = 1
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


EVENT_COLUMNS = ("step", "request", "slot", "kind", "tokens", "blocks")
STEP_COLUMNS = ("start", "duration", "waiting", "running", "free_blocks")
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
