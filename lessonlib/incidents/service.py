"""A server to set up: a load, a machine and a promise; how many requests it is kept to, and the best settings found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from random import Random
from typing import NamedTuple

import numpy as np

from lessonlib.errors import CourseError
from lessonlib.scheduling.policies import make_policy
from lessonlib.simulation.costs import CostModel
from lessonlib.simulation.simulator import simulate
from lessonlib.trace import Trace
from lessonlib.workload import Request, Workload

POLICIES = ("static", "orca", "tgi", "prefill-first", "continuous")
MOST_SLOTS = 64
BLOCK_SIZE = 16
BASE, PER_PROMPT_TOKEN, PER_KV_TOKEN = 0.010, 0.0001, 0.0000005  # seconds
PAUSES, MEMORY, RUSH, MIXED = KINDS = ("pauses", "memory", "rush", "mixed")
ROUNDING = 1e-9  # a promise that is kept to the very second is kept
CATALOG = 6  # services of each kind


class Settings(NamedTuple):
    """How a server is set up."""

    policy: str
    slots: int
    token_budget: int


@dataclass(frozen=True)
class Service:
    """What is asked of a server.

    Attributes:
        kind: what its settings have to watch, one of KINDS.
        requests: (arrival in seconds, prompt tokens, output tokens) of each.
        blocks: K/V blocks that requests can hold.
        ttft_limit: seconds from the arrival to the first token that are promised.
        pause_limit: seconds from one token to the next that are promised.
    """

    kind: str
    requests: tuple[tuple[float, int, int], ...]
    blocks: int
    ttft_limit: float
    pause_limit: float
    block_size: int = BLOCK_SIZE

    @property
    def longest_answer(self) -> int:
        """The limit that every request gives, since no server knows an answer's length ahead."""
        return max(answer for _, _, answer in self.requests)


def serve(service: Service, settings: Settings) -> Trace:
    """The Trace of the load under these settings.

    Raises `CourseError` for settings with which a server does not start.
    """
    if settings.policy not in POLICIES:
        raise CourseError(f"no policy {settings.policy!r}: there is {', '.join(POLICIES)}")
    if not 1 <= settings.slots <= MOST_SLOTS:
        raise CourseError(f"{settings.slots} slots: give 1 to {MOST_SLOTS}")
    workload = Workload.from_requests(
        [Request(prompt, answer, arrival) for arrival, prompt, answer in service.requests], "seconds"
    )
    return simulate(
        workload,
        make_policy(settings.policy),
        settings.slots,
        service.blocks + 1,
        service.block_size,
        settings.token_budget,
        CostModel(BASE, 0.0, PER_PROMPT_TOKEN, PER_KV_TOKEN),
        max_tokens=service.longest_answer,
    )


class Outcome(NamedTuple):
    """To how many requests both promises were kept; how many got their first token late, how many waited too long
    for a later one."""

    kept: int
    late: int
    paused: int


def outcome(service: Service, settings: Settings) -> Outcome:
    """What came of the promises. Raises as `serve` does."""
    trace = serve(service, settings)
    arrivals = trace.requests["arrival_time"].tolist()
    late, paused = [], []
    for times, arrival in zip(trace.token_times(), arrivals, strict=True):
        late.append(not times or times[0] - arrival > service.ttft_limit + ROUNDING)
        paused.append(any(b - a > service.pause_limit + ROUNDING for a, b in pairwise(times)))
    kept = sum(not (one or other) for one, other in zip(late, paused, strict=True))
    return Outcome(kept, sum(late), sum(paused))


# ----- the best settings that a search finds -----


@cache
def best(service: Service) -> tuple[Settings, int]:
    """Settings, and to how many requests they keep both promises: the best of those that a search tries."""
    tried = {settings: outcome(service, settings).kept for settings in _tried(service)}
    settings = max(tried, key=lambda each: tried[each])
    return settings, tried[settings]


def _tried(service: Service) -> Iterator[Settings]:
    """The rule of thumb with each policy, and with more or fewer slots and tokens."""
    rule = rule_of_thumb(service)
    for policy in POLICIES:
        yield rule._replace(policy=policy)
    for slots in (0.5, 1.0, 1.3):
        for budget in (0.6, 1.0):
            many = min(MOST_SLOTS, max(1, int(rule.slots * slots)))
            yield Settings(rule.policy, many, max(many, int(rule.token_budget * budget)))


def rule_of_thumb(service: Service) -> Settings:
    """As many slots as memory carries requests of the mean size, and a step as long as a pause may be."""
    room = service.blocks * service.block_size
    mean = sum(prompt + answer for _, prompt, answer in service.requests) / len(service.requests)
    slots = max(1, min(MOST_SLOTS, int(room / mean)))
    tokens = int((service.pause_limit - BASE - PER_KV_TOKEN * room) / PER_PROMPT_TOKEN)
    return Settings("continuous", slots, max(slots, tokens))


# ----- services to draw -----


def _load(
    rng: Random, many: int, rate: float, prompts: tuple[int, int], answers: tuple[int, int]
) -> list[tuple[float, int, int]]:
    now, requests = 0.0, []
    for _ in range(many):
        requests.append((round(now, 3), rng.randint(*prompts), rng.randint(*answers)))
        now += rng.expovariate(rate)
    return requests


def _promised(rng: Random, drawn: Service) -> Service:
    """The same with a promise of the first token that can be kept, though not with much to spare."""
    trace = serve(drawn, rule_of_thumb(drawn))
    return replace(
        drawn, ttft_limit=float(np.quantile(trace.first_token_time(), 0.97)) * rng.uniform(1.05, 1.15)
    )


def _pauses(rng: Random) -> Service:
    """Long prompts beside riders who must not wait for their next token."""
    requests = _load(rng, 36, rng.uniform(9, 11), (100, 700), (8, 30))
    return Service(PAUSES, tuple(requests), rng.randint(380, 440), 0.0, rng.uniform(0.026, 0.034))


def _memory(rng: Random) -> Service:
    """Answers that grow past what memory carries for all who would fit at first."""
    requests = _load(rng, 32, rng.uniform(50, 70), (16, 40), (40, 70))
    return Service(MEMORY, tuple(requests), rng.randint(45, 65), 0.0, rng.uniform(0.07, 0.1))


def _rush(rng: Random) -> Service:
    """Many at once who want their first token soon, and do not mind a pause."""
    requests = _load(rng, 40, rng.uniform(60, 90), (60, 200), (6, 16))
    return Service(RUSH, tuple(requests), rng.randint(680, 740), 0.0, rng.uniform(0.25, 0.4))


def _mixed(rng: Random) -> Service:
    """A little of each."""
    requests = _load(rng, 36, rng.uniform(14, 18), (60, 500), (10, 60))
    return Service(MIXED, tuple(requests), rng.randint(180, 260), 0.0, rng.uniform(0.04, 0.06))


DRAW: dict[str, Callable[[Random], Service]] = {PAUSES: _pauses, MEMORY: _memory, RUSH: _rush, MIXED: _mixed}


@cache
def service(kind: str, number: int) -> Service:
    """One of the services of a kind, by its number, 0 to `CATALOG` - 1."""
    rng = Random(f"{kind} {number}")
    return _promised(rng, DRAW[kind](rng))
