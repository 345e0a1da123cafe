"""The overhearing laboratory: an allocator with one famous bug, and what a real model says because of it.

A guest asks something harmless while a stranger, boarding a step later, tells something private. With a sound
pool the guest gets the answer it gets alone. With `DoubleFreePool` both read and write the same blocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from lessonlib.engine.model import Llama
from lessonlib.engine.runner import ModelRunner, step_model
from lessonlib.incidents.memory import DoubleFreePool as DoubleFreePool
from lessonlib.scheduling.block_pool import BlockPool
from lessonlib.scheduling.kv_cache import KVCache
from lessonlib.scheduling.plan import StepPlan
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.trace import Trace

FIRST, GUEST, STRANGER = "first", "guest", "stranger"
GREETING = "Say hello to everybody in the hotel, please, and wish them a good morning and a nice breakfast."
NUM_BLOCKS, BLOCK_SIZE = 24, 16


@dataclass(frozen=True)
class Eavesdropping:
    """What everyone was told.

    Attributes:
        answers: text by rider ("first", "guest", "stranger").
        shared_blocks: blocks that stood in two block tables at once, in ascending order.
        trace: the ride, in steps.
    """

    answers: dict[str, str]
    shared_blocks: list[int]
    trace: Trace


def eavesdrop(
    model: Llama,
    tokenizer: PreTrainedTokenizerBase,
    guest: str,
    stranger: str,
    pool: Callable[[int, int, int], BlockPool] = BlockPool,
    max_tokens: int = 32,
    poison: bool = False,
) -> Eavesdropping:
    """Two slots. A first rider leaves; the guest boards into its blocks; a step later the stranger boards.

    Args:
        guest, stranger: what they say, as one chat message each.
        pool: makes the block pool, as `BlockPool` or `DoubleFreePool`.
        max_tokens: longest answer of guest and stranger.
        poison: fill free blocks with NaN after each step.

    Raises `CourseError` where somebody reads a poisoned block.
    """
    blocks = pool(NUM_BLOCKS, BLOCK_SIZE, 0)
    scheduler = Scheduler(2, block_size=BLOCK_SIZE, kv_cache=KVCache(blocks))
    ride = _Ride(
        ModelRunner(model, NUM_BLOCKS, BLOCK_SIZE, check=True), scheduler, blocks if poison else None
    )
    scheduler.add_request(FIRST, chat_ids(tokenizer, GREETING), 2)
    ride.step()
    ride.step()
    scheduler.add_request(GUEST, chat_ids(tokenizer, guest), max_tokens)
    ride.step()
    scheduler.add_request(STRANGER, chat_ids(tokenizer, stranger), max_tokens)
    while scheduler.has_unfinished:
        ride.step()
    answers = {name: _text(tokenizer, ids) for name, ids in ride.tokens.items()}
    trace = scheduler.build_trace()
    trace = replace(trace, header=replace(trace.header, poisoned=poison))
    return Eavesdropping(answers, sorted(ride.shared), trace)


class _Ride:
    """Steps a scheduler with a real model, and watches the block tables."""

    def __init__(self, runner: ModelRunner, scheduler: Scheduler, poisoned: BlockPool | None) -> None:
        self.runner, self.scheduler, self.poisoned = runner, scheduler, poisoned
        self.tokens: dict[str, list[int]] = {FIRST: [], GUEST: [], STRANGER: []}
        self.shared: set[int] = set()

    def step(self) -> None:
        step_model(self.runner, self.scheduler, self.tokens, self._look)
        if self.poisoned is not None:
            self.runner.poison(self.poisoned.free_blocks())

    def _look(self, plan: StepPlan) -> None:
        self.shared |= blocks_in_two_tables(plan)


def blocks_in_two_tables(plan: StepPlan) -> set[int]:
    """Blocks that more than one request of the step points at. Without prefix sharing there must be none."""
    seen: set[int] = set()
    twice: set[int] = set()
    for row in plan.scheduled:
        twice |= seen.intersection(row.block_table)
        seen.update(row.block_table)
    return twice


def chat_ids(tokenizer: PreTrainedTokenizerBase, message: str) -> list[int]:
    """Token ids of one user message in the model's chat template."""
    conversation = [{"role": "user", "content": message}]
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(str(text))["input_ids"])


def _text(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True))


def leaked_words(secret: str, broken: str, sound: str) -> list[str]:
    """Words of at least five letters that the stranger said, the guest was told, and would not have been told."""
    private, told, usual = (set(re.findall(r"[a-z]{5,}", text.lower())) for text in (secret, broken, sound))
    return sorted((private & told) - usual)
