"""What a scheduler is given: requests, and limits. And random loads of several kinds, on which faults show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np

from lessonlib.scheduling.block_pool import BlockPool
from lessonlib.scheduling.kv_cache import KVCache
from lessonlib.scheduling.policies import VLLM, SLATiers
from lessonlib.scheduling.policy import Policy
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.simulation.costs import CostModel
from lessonlib.workload import Request, Workload

BLOCK_SIZE = 4
STEP = CostModel(launch=0.012, weights=0.0, per_prefill_token=0.0005, per_kv_token=0.00001)


@dataclass(frozen=True)
class Load:
    """Requests and limits of one run.

    Attributes:
        workload: arrivals in steps, or in seconds where there is a cost model.
        slots, num_blocks, block_size, token_budget: as of `Scheduler`.
        watermark: blocks that an admission beside others leaves free.
        patience: steps that a request waits for each tier below the best; 0: no tiers.
        prompts: token ids of each prompt, where prefixes are shared; else None.
        tenants: a name for each request; none where there is one tenant.
        gives_up: request → the step before which it gives up.
        cost_model: seconds of each step; None: the clock counts steps.
    """

    workload: Workload
    slots: int
    num_blocks: int
    token_budget: int
    block_size: int = BLOCK_SIZE
    watermark: int = 0
    patience: int = 0
    prompts: Sequence[Sequence[int]] | None = None
    tenants: tuple[str, ...] = ()
    gives_up: Mapping[int, int] = field(default_factory=dict)
    cost_model: CostModel | None = None

    def policy(self) -> Policy:
        """First come, first served with the watermark, or tiers."""
        if self.patience:
            return SLATiers(self.patience)
        return VLLM((self.watermark + 0.5) / self.num_blocks if self.watermark else 0.0)

    def pool(self) -> BlockPool:
        return BlockPool(self.num_blocks, self.block_size, seed=0)

    def scheduler(
        self,
        cls: Callable[..., Scheduler] = Scheduler,
        policy: Policy | None = None,
        kv_cache: KVCache | None = None,
    ) -> Scheduler:
        """A new scheduler for this load; a sound one unless parts are given, which the Trace's header does not tell."""
        decides = policy or self.policy()
        decides.name = self.policy().name
        return cls(
            self.slots,
            token_budget=self.token_budget,
            policy=decides,
            kv_cache=kv_cache or KVCache(self.pool(), self.prompts is not None),
            clock="seconds" if self.cost_model else "steps",
            maker="simulator",
        )


def _workload(
    rng: Random, many: int, prompts: range, answers: range, every: float, tiers: int = 1
) -> Workload:
    """So many requests, one every `every` steps or seconds in the mean."""
    requests, now = [], 0.0
    for _ in range(many):
        tier = rng.randrange(tiers)
        requests.append(Request(rng.choice(prompts), rng.choice(answers), round(now, 4), tier))
        now += rng.choice((0, 0, 1, 2)) * every
    return Workload.from_requests(requests, "seconds" if every < 0.5 else "steps")


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_SIZE)


def _longest(workload: Workload) -> int:
    """Blocks that the longest request comes to hold."""
    return _blocks(int(np.max(workload.prompt_tokens + workload.output_tokens)))


def quiet(rng: Random) -> Load:
    """Room for everyone at once."""
    workload = _workload(rng, rng.randint(3, 5), range(2, 9), range(3, 9), every=1.0)
    slots = len(workload)
    return Load(workload, slots, slots * _longest(workload) + 1, token_budget=64)


def tight(rng: Random) -> Load:
    """Memory for less than the slots would use, so that requests are preempted."""
    workload = _workload(rng, rng.randint(9, 12), range(3, 11), range(5, 13), every=1.0)
    slots = rng.randint(3, 5)
    room = max(_longest(workload) + 4, int(slots * rng.uniform(2.2, 3.0)))
    return Load(workload, slots, room + 1, token_budget=rng.choice((16, 24, 64)))


def tight_in_seconds(rng: Random) -> Load:
    """The same by a clock of seconds."""
    load = tight(rng)
    timed = load.workload.with_arrivals(load.workload.arrival_time * 0.015, "seconds")
    return Load(timed, load.slots, load.num_blocks, load.token_budget, cost_model=STEP)


def impatient(rng: Random) -> Load:
    """Tight memory, and some requests give up."""
    load = tight(rng)
    many = len(load.workload)
    gives_up = {row: rng.randint(4, 24) for row in sorted(rng.sample(range(many), many // 3))}
    return Load(load.workload, load.slots, load.num_blocks, load.token_budget, gives_up=gives_up)


def crowded(rng: Random) -> Load:
    """Memory for everyone, and more requests than slots."""
    workload = _workload(rng, rng.randint(11, 15), range(2, 9), range(2, 9), every=1.0)
    slots = rng.randint(2, 4)
    return Load(workload, slots, slots * _longest(workload) + 4, token_budget=rng.choice((24, 32, 64)))


def crowded_in_seconds(rng: Random) -> Load:
    """The same by a clock of seconds."""
    load = crowded(rng)
    timed = load.workload.with_arrivals(load.workload.arrival_time * 0.011, "seconds")
    return Load(timed, load.slots, load.num_blocks, load.token_budget, cost_model=STEP)


def tiered(rng: Random) -> Load:
    """More requests than slots, in two or three tiers."""
    workload = _workload(
        rng, rng.randint(12, 15), range(2, 9), range(2, 8), every=1.0, tiers=rng.randint(2, 3)
    )
    slots = rng.randint(2, 3)
    room = slots * _longest(workload) + 4
    return Load(workload, slots, room, token_budget=32, patience=rng.randint(4, 8))


def long_prompts(rng: Random) -> Load:
    """Prompts that take several steps beside requests that decode."""
    workload = _workload(rng, rng.randint(8, 10), range(6, 31), range(4, 11), every=2.0)
    slots = rng.randint(3, 4)
    room = slots * _longest(workload) + 4
    return Load(workload, slots, room, token_budget=slots + rng.randint(2, 8))


def watermarked(rng: Random) -> Load:
    """Tight memory of which admissions leave some blocks free."""
    workload = _workload(rng, rng.randint(9, 12), range(3, 13), range(4, 10), every=1.0)
    slots, watermark = rng.randint(3, 5), rng.randint(2, 4)
    room = max(_longest(workload) + watermark, int(slots * rng.uniform(2.6, 3.4)) + watermark)
    return Load(workload, slots, room + 1, token_budget=64, watermark=watermark)


def shared_prefixes(rng: Random) -> Load:
    """Prompts put together from a few blocks, of two tenants, in memory for all that was ever stored."""
    pieces = [[rng.randint(1, 9) for _ in range(BLOCK_SIZE)] for _ in range(3)]
    pieces += [[*piece[:-1], piece[-1] + 1] for piece in pieces[:2]]
    prompts = []
    for _ in range(rng.randint(9, 12)):
        blocks = [rng.choice(pieces) for _ in range(rng.randint(1, 4))]
        prompts.append([token for block in blocks for token in block] + [rng.randint(1, 9)])
    times, now = [], 0.0
    for _ in prompts:
        times.append(now)
        now += rng.choice((0, 0, 1, 2))
    answers = [rng.randint(2, 5) for _ in prompts]
    workload = Workload.from_lengths(answers, [len(prompt) for prompt in prompts], times)
    room = sum(_blocks(len(prompt) + answer) for prompt, answer in zip(prompts, answers, strict=True))
    tenants = tuple(rng.choice(("blue", "gold")) for _ in prompts)
    return Load(workload, 3, room + 1, token_budget=rng.choice((24, 48)), prompts=prompts, tenants=tenants)


LOADS: tuple[Callable[[Random], Load], ...] = (
    quiet,
    tight,
    tight_in_seconds,
    impatient,
    crowded,
    crowded_in_seconds,
    tiered,
    long_prompts,
    watermarked,
    shared_prefixes,
)
