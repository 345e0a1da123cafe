"""A policy on a workload, with a step-cost model in place of a model: a Workload goes in, a Trace comes out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lessonlib.errors import CourseError
from lessonlib.scheduling.plan import StepPlan
from lessonlib.scheduling.policies import make_policy
from lessonlib.scheduling.policy import Policy
from lessonlib.scheduling.request import RequestRejectedError
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.simulation.costs import CostModel
from lessonlib.trace import Trace
from lessonlib.workload import Workload


class Simulator:
    """Drives a Scheduler as an engine would, with a cost model in place of a model.

    Args:
        workload: requests; arrivals in steps without a cost model, in seconds with one.
        scheduler: a new one; `simulate` makes it.
        cost_model: seconds of each step; None: the clock counts steps.
        prompts: token ids of each prompt, for prefix caching; None: only their lengths are known.
        max_tokens: the limit that the scheduler sees for every answer; None: the answer's own length.
        salts: a tenant's name for each request.

    Raises:
        CourseError: for arrivals in another unit, prompts of other lengths, or a `max_tokens` below an answer's
            length.
    """

    def __init__(
        self,
        workload: Workload,
        scheduler: Scheduler,
        cost_model: CostModel | None = None,
        prompts: Sequence[Sequence[int]] | None = None,
        max_tokens: int | None = None,
        salts: Sequence[str] = (),
    ) -> None:
        check_unit(workload, cost_model)
        self.workload, self.scheduler, self.cost_model = workload, scheduler, cost_model
        self.prompts, self.salts = check_prompts(workload, prompts), salts
        self.limits, self.max_tokens = workload.output_tokens.tolist(), max_tokens
        if max_tokens is not None and max_tokens < max(self.limits):
            raise CourseError(
                f"max_tokens {max_tokens}, but a request wants {max(self.limits)}: give at least that"
            )
        arrivals = workload.arrival_time if cost_model else np.ceil(workload.arrival_time)
        self.arrivals: list[float] = arrivals.tolist()
        self.lengths: list[int] = np.maximum(workload.prompt_tokens, 1).tolist()
        self.priorities: list[int] = workload.priority.tolist()
        self.arrived = 0
        self.now = 0.0

    def run(self) -> Trace:
        """Run until every request is finished or rejected."""
        while self.arrived < len(self.workload) or self.scheduler.has_unfinished:
            if self.cost_model and not self.scheduler.has_unfinished:
                self.now = max(self.now, self.arrivals[self.arrived])
            self.receive()
            if self.scheduler.has_unfinished or self.arrived < len(self.workload):
                self.step()
        return self.scheduler.build_trace()

    def receive(self) -> None:
        """Hand the requests that have arrived by now to the scheduler, which rejects those that can never fit."""
        while self.arrived < len(self.workload) and self.arrivals[self.arrived] <= self.now:
            row, self.arrived = self.arrived, self.arrived + 1
            self.scheduler.still_to_come = len(self.workload) - self.arrived
            try:
                self.scheduler.add_request(
                    str(row),
                    self.prompts[row] if self.prompts else self.lengths[row],
                    self.max_tokens or self.limits[row],
                    priority=self.priorities[row],
                    salt=self.salts[row] if self.salts else "",
                    arrival_time=self.arrivals[row],
                )
            except RequestRejectedError:
                continue  # the Trace records it

    def step(self) -> None:
        """One step: plan it, take its cost, report its tokens."""
        plan = self.scheduler.schedule()
        duration = self._duration(plan)
        tokens = dict.fromkeys(plan.sampled_ids, 0)
        self.scheduler.update(plan, tokens, self._stopped(plan), start=self.now, duration=duration)
        self.now += duration

    def _duration(self, plan: StepPlan) -> float:
        if plan.decodes or plan.prefills:
            return self.cost_model.seconds(plan) if self.cost_model else 1.0
        if self.arrived == len(self.workload):
            name, left = self.scheduler.policy.name, len(self.scheduler.requests)
            raise CourseError(
                f"policy {name!r} leaves {left} requests waiting for ever: let it schedule one of them"
            )
        return self.arrivals[self.arrived] - self.now if self.cost_model else 1.0

    def _stopped(self, plan: StepPlan) -> list[str]:
        """Requests whose answer ends with this step, below the limit that the scheduler sees."""
        if self.max_tokens is None:
            return []
        rows = (row.request for row in plan.sampled_rows)
        return [
            request.id for request in rows if request.num_output_tokens + 1 == self.limits[int(request.id)]
        ]


def simulate(
    workload: Workload,
    policy: Policy | str = "vllm",
    slots: int = 8,
    num_blocks: int = 0,
    block_size: int = 16,
    token_budget: int | None = None,
    cost_model: CostModel | None = None,
    *,
    max_model_len: int | None = None,
    free_prefill: bool = False,
    prefix_caching: bool = False,
    hash_seed: bytes | int | None = None,
    prompts: Sequence[Sequence[int]] | None = None,
    max_tokens: int | None = None,
    salts: Sequence[str] = (),
) -> Trace:
    """Simulate one workload under one policy.

    Args:
        workload: requests with arrivals in steps, or in seconds where there is a cost model. A prompt of 0
            tokens counts as 1, the token that starts a text.
        policy: a `Policy` or the name of one.
        slots, num_blocks, block_size, token_budget, prefix_caching, hash_seed, free_prefill: see `Scheduler`.
        cost_model: seconds of each step; without one the clock ticks steps.
        max_model_len: longest prompt and answer together; by default the workload's longest.
        prompts, max_tokens, salts: see `Simulator`.

    Returns:
        The Trace, its clock in steps or seconds.

    Raises:
        CourseError: for sizes with which no request could run, or arrivals in another unit.
    """
    longest = int((np.maximum(workload.prompt_tokens, 1) + workload.output_tokens).max())
    scheduler = Scheduler(
        slots,
        num_blocks,
        block_size,
        token_budget,
        make_policy(policy) if isinstance(policy, str) else policy,
        max_model_len=max_model_len or max(longest, 2, (max_tokens or 0) + int(workload.prompt_tokens.max())),
        prefix_caching=prefix_caching,
        hash_seed=hash_seed,
        free_prefill=free_prefill,
        clock="seconds" if cost_model else "steps",
        maker="simulator",
    )
    return Simulator(workload, scheduler, cost_model, prompts, max_tokens, salts).run()


def check_unit(workload: Workload, cost_model: CostModel | None) -> None:
    """Raises `CourseError` if the arrivals are in another unit than the clock."""
    all_at_once = not workload.arrival_time.any()
    if cost_model and workload.time_unit != "seconds" and not all_at_once:
        raise CourseError(
            f"arrivals are in {workload.time_unit}, a cost model needs seconds: give arrivals in seconds"
        )
    if not cost_model and workload.time_unit != "steps" and not all_at_once:
        raise CourseError(f"arrivals are in {workload.time_unit}: bring them to steps with Workload.in_steps")


def check_prompts(
    workload: Workload, prompts: Sequence[Sequence[int]] | None
) -> Sequence[Sequence[int]] | None:
    """`prompts` itself, or a `CourseError` if their lengths are not the workload's."""
    if prompts is None:
        return None
    lengths = [len(prompt) for prompt in prompts]
    if lengths != workload.prompt_tokens.tolist():
        raise CourseError(
            "the prompts' lengths are not the workload's: make it with Workload.from_lengths of them"
        )
    return prompts
