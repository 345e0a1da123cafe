"""Exercise 05 on real rides: its worked answers say what the scheduler and the engine do."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from lessonlib.checks.ex05.step_inputs import Batch
from lessonlib.engine.answers import Answer
from lessonlib.engine.frontend.params import SamplingParams
from lessonlib.engine.inputs import StepInputs
from lessonlib.scheduling.policy import Policy
from lessonlib.scheduling.scheduler import Scheduler

EX05 = runpy.run_path(str(Path(__file__).parents[1] / "solutions" / "ex05.py"))
SLOTS, BLOCK_SIZE, REQUESTS = 3, 4, 12
TIGHT, AMPLE = 10, 200  # blocks: for one long request and little more, for all
EOS, STOP, VOCABULARY = (0, 1), 2, 40
SEEDS = range(20)


class ThrowsOut(Policy):
    """The plain policy, but that now and then somebody on board makes way for somebody who waits."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    def victim(self, scheduler, candidates, request):
        if request.is_running:
            return candidates[-1]
        return self.rng.choice(candidates) if self.rng.random() < 0.1 else None


class Ride:
    """A scheduler to which requests come at random, and the answer of each. `seen` counts what happened."""

    def __init__(self, seed: int, num_blocks: int, prefix_caching: bool = False) -> None:
        self.rng = Random(seed)
        self.scheduler = Scheduler(
            SLOTS,
            num_blocks,
            BLOCK_SIZE,
            token_budget=self.rng.choice((SLOTS, SLOTS + 2, 10, 100)),
            policy=ThrowsOut(self.rng),
            prefix_caching=prefix_caching,
        )
        self.answers: dict[str, Answer] = {}
        self.still_to_come = REQUESTS
        self.seen: Counter[str] = Counter()

    @property
    def goes_on(self) -> bool:
        return bool(self.still_to_come or self.scheduler.has_unfinished)

    def arrivals(self) -> None:
        """Up to two requests come; somebody is here afterwards."""
        least = 0 if self.scheduler.has_unfinished else 1
        for _ in range(min(self.still_to_come, self.rng.randint(least, 2))):
            self._arrives()

    def _arrives(self) -> None:
        name = f"request {self.still_to_come}"
        self.still_to_come -= 1
        prompt = [self.rng.randrange(2) for _ in range(self.rng.randint(1, 20))]  # alike by chance
        params = SamplingParams(
            max_tokens=self.rng.randint(1, 8),
            stop_token_ids=self.rng.choice((None, [STOP], [EOS[0]])),
            ignore_eos=self.rng.random() < 0.5,
        )
        state = self.scheduler.add_request(name, prompt, params.max_tokens)
        ends, eos = set(params.stop_token_ids or ()), frozenset(() if params.ignore_eos else EOS)
        self.answers[name] = Answer(state, None, params, 0, ends, eos, None)

    def plan(self):
        plan = self.scheduler.schedule()
        self.seen["preempted"] += len(plan.preempted)
        self.seen["resumed"] += len(plan.resumed)
        self.seen["parts of prompts"] += sum(not row.yields_token for row in plan.scheduled)
        self.seen["mixed steps"] += bool(plan.decodes and plan.prefills)
        self.seen["words read again"] += sum(
            row.num_computed_tokens >= row.request.prompt_tokens for row in plan.prefills
        )
        return plan

    def abort_somebody(self) -> None:
        """Somebody on board leaves while the step is in flight, now and then."""
        if self.scheduler.running and self.rng.random() < 0.1:
            name = self.rng.choice(self.scheduler.running).id
            self.scheduler.abort(name)
            del self.answers[name]
            self.seen["aborted"] += 1

    def sample(self, plan) -> dict[str, int]:
        """A token for each row, those that only read included."""
        return {row.id: self.rng.randrange(VOCABULARY) for row in plan.scheduled}

    def report(self, plan, tokens: dict[str, int]) -> list[tuple[str, list[int], str | None]]:
        """What the engine makes of a step's tokens: (id, answer, reason) of each request that is finished."""
        for name in plan.sampled_ids:
            if name in self.answers:
                self.answers[name].add(tokens[name], None, 0)
        stopped = [name for name in plan.sampled_ids if self._reason(name) == "stop"]
        finished = [self.answers[state.id] for state in self.scheduler.update(plan, tokens, stopped)]
        self.seen.update(str(answer.finish_reason) for answer in finished)
        return [(answer.id, answer.token_ids, answer.finish_reason) for answer in finished]

    def _reason(self, name: str) -> str | None:
        return self.answers[name].finish_reason if name in self.answers else None


def shown(thing, *names: str) -> dict:
    """Some fields of a request or a row as an exercise is shown them; lists are copies."""
    values = {name: getattr(thing, name) for name in names}
    return {name: list(value) if isinstance(value, list) else value for name, value in values.items()}


@pytest.mark.parametrize(
    ("num_blocks", "prefix_caching"), [(AMPLE, False), (TIGHT, False), (AMPLE, True), (TIGHT, True)]
)
def test_step_inputs_are_the_engines(num_blocks, prefix_caching):
    seen = Counter()
    for seed in SEEDS:
        ride = Ride(seed, num_blocks, prefix_caching)
        while ride.goes_on:
            ride.arrivals()
            plan = ride.plan()
            names = "num_computed_tokens", "num_scheduled_tokens", "block_table"
            rows = [{"token_ids": row.request.token_ids, **shown(row, *names)} for row in plan.scheduled]
            due = StepInputs.of(plan.scheduled, BLOCK_SIZE)
            batch = EX05["step_inputs"](rows, BLOCK_SIZE)
            assert [*batch] == [getattr(due, name).tolist() for name in Batch._fields]
            ride.report(plan, ride.sample(plan))
        seen += ride.seen
    assert all(seen[name] for name in ("preempted", "resumed", "parts of prompts", "mixed steps"))


def test_shares_are_the_schedulers():
    names = "id", "prompt_tokens", "num_output_tokens", "num_computed_tokens", "prefill_target"
    seen = Counter()
    for seed in SEEDS:
        ride = Ride(seed, num_blocks=0)  # memory is no question
        scheduler = ride.scheduler
        while ride.goes_on:
            ride.arrivals()
            running = [shown(state, *names) for state in scheduler.running]
            waits = sorted(
                (state for state in scheduler.requests.values() if not state.is_running),
                key=lambda state: state.key,
            )
            waiting = [shown(state, *names) for state in waits]
            plan = ride.plan()
            if not plan.preempted:  # else the step was planned for others than these
                shares = EX05["share_budget"](running, waiting, SLOTS, scheduler.token_budget)
                assert shares == [(row.id, row.num_scheduled_tokens) for row in plan.scheduled]
            ride.report(plan, ride.sample(plan))
        seen += ride.seen
    assert all(seen[name] for name in ("resumed", "parts of prompts", "mixed steps", "words read again"))


def test_finish_is_the_engines():
    names = "id", "slot", "token_ids", "prompt_tokens", "num_computed_tokens", "block_table"
    seen = Counter()
    for seed in SEEDS:
        ride = Ride(seed, TIGHT)
        while ride.goes_on:
            ride.arrivals()
            plan, pool = ride.plan(), ride.scheduler.kv_cache.pool
            pool_hashes, pool.hashes = pool.hashes, [b"worth keeping"] * pool.num_blocks  # so: to the end
            ride.abort_somebody()
            in_step = [row.request for row in plan.scheduled if row.request.is_running]
            others = [state for state in ride.scheduler.running if state not in in_step]
            tokens = ride.sample(plan)
            running, finished, free_slots, free = EX05["finish"](
                [shown(state, *names) for state in in_step + others],
                {name: shown_params(answer.params) for name, answer in ride.answers.items()},
                tokens,
                list(EOS),
                free_slots_of(ride.scheduler),
                pool.free_blocks(),
            )
            assert finished == ride.report(plan, tokens)
            by_id = {state.id: shown(state, *names) for state in ride.scheduler.running}
            assert {request["id"]: request for request in running} == by_id
            assert free_slots == free_slots_of(ride.scheduler)
            assert free == pool.free_blocks()
            pool.hashes = pool_hashes
        seen += ride.seen
    assert all(seen[name] for name in ("aborted", "stop", "length", "resumed", "parts of prompts"))


def shown_params(params: SamplingParams) -> dict:
    return {
        "max_tokens": params.max_tokens,
        "stop_token_ids": params.stop_token_ids or [],
        "ignore_eos": params.ignore_eos,
    }


def free_slots_of(scheduler: Scheduler) -> list[int]:
    return sorted(set(range(SLOTS)) - {state.slot for state in scheduler.running})
