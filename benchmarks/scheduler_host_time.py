"""What scheduling costs the host, how fast each policy is simulated, and vLLM's scheduler beside ours.

    python -m benchmarks.scheduler_host_time --out FOLDER      # 100,000 requests a policy: 20 minutes
    python -m benchmarks.scheduler_host_time --requests 2000   # a quick look
    python -m benchmarks.scheduler_host_time --vllm-python ENVIRONMENT/bin/python

Part 1 times `schedule` + `update` of a step in which everyone decodes, at 8 to 1,024 running requests, in a
small and a large pool, early and late in long answers: it should grow with the requests of the step and with
nothing else. With `--vllm-python`, vLLM's V1 scheduler (benchmarks/vllm_scheduler.py) takes turns with ours
in a process of its own. Part 2 simulates requests of the Azure conversation trace's lengths on an H100 with
Llama-2-7B. Times are CPU times of the process, so that a busy machine disturbs them less, with wall times
beside them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks import vllm_scheduler
from benchmarks.record import record
from benchmarks.vllm_scheduler import BLOCK_SIZE, BLOCKS_EACH, MAX_MODEL_LEN, MAX_TOKENS, PROMPT, time_steps
from lessonlib.engine.checkpoint import resolve
from lessonlib.metrics import metrics
from lessonlib.scheduling.plan import StepPlan
from lessonlib.scheduling.policies import POLICIES, make_policy
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.simulation.costs import CostModel, Hardware
from lessonlib.simulation.simulator import Simulator
from lessonlib.workload import Workload, azure_lengths, azure_prompts, poisson_arrivals

RUNNING = (8, 16, 32, 64, 128, 256, 512, 1024)
CROWD = 256  # running requests at which pool size and history are varied
LARGE_POOL = 10 * BLOCKS_EACH  # blocks a request
REQUESTS = 100_000  # a policy
LATE = 390  # steps before the first that is timed
POINTS = [(running, BLOCKS_EACH, 0) for running in RUNNING] + [
    (CROWD, LARGE_POOL, 0),
    (CROWD, BLOCKS_EACH, LATE),
]
TIMES = ("cpu_us", "cpu_p99_us", "wall_us")
HARDWARE = "h100:llama-2-7b"
MODEL_LEN = 4096  # tokens, Llama 2's
TOKEN_BUDGET = 2048  # tokens a step, in the simulations


# ----- a step -----


def crowd(running: int, blocks_each: int) -> Scheduler:
    """A scheduler with everyone's prompt read."""
    budget = max(running * PROMPT, MAX_MODEL_LEN)
    scheduler = Scheduler(running, running * blocks_each + 1, BLOCK_SIZE, budget)
    for row in range(running):
        scheduler.add_request(str(row), PROMPT, MAX_TOKENS)
    one_step(scheduler)
    return scheduler


def one_step(scheduler: Scheduler) -> None:
    plan = scheduler.schedule()
    scheduler.update(plan, invented_tokens(plan))


def invented_tokens(plan: StepPlan) -> dict[str, int]:
    return dict.fromkeys(plan.sampled_ids, 0)


def step_time(running: int, blocks_each: int, steps_before: int) -> dict[str, float]:
    """Microseconds of a step with everyone decoding, from step `steps_before` on."""
    scheduler = crowd(running, blocks_each)
    for _ in range(steps_before):
        one_step(scheduler)
    times = time_steps(scheduler.schedule, invented_tokens, scheduler.update)
    assert len(scheduler.running) == running, "not everyone was on board"
    return times


def summary(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of each time in microseconds, the median of the rounds."""
    return {name: round(statistics.median(times[name] for times in rounds), 1) for name in TIMES}


def growth(steps: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Whether the time of a step grows with its requests alone; each ratio would best be 1."""
    cpu_us = {(row["running"], row["blocks"], row["steps_before"]): row["cpu_us"] for row in steps}
    small, large, crowded, pool, late = (
        cpu_us[running, running * blocks_each + 1, before]
        for running, blocks_each, before in (POINTS[3], POINTS[len(RUNNING) - 1], POINTS[5], *POINTS[-2:])
    )
    return {
        "us_a_request_at_1024_over_at_64": round(large / 1024 / (small / 64), 2),
        "ten_times_the_pool": round(pool / crowded, 2),
        f"after_{LATE}_steps": round(late / crowded, 2),
    }


def measure_steps(child: Child | None, rounds: int) -> dict[str, Any]:
    """All points in turn, round after round, vLLM's schedulers between them."""
    ours: dict[tuple[int, int, int], list[dict[str, float]]] = {point: [] for point in POINTS}
    theirs: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _ in tqdm(range(rounds), desc="rounds of steps"):
        for point in POINTS:
            ours[point].append(step_time(*point))
            if child and point[0] in vllm_scheduler.RUNNING and point[1:] == (BLOCKS_EACH, 0):
                for name in vllm_scheduler.SCHEDULERS:
                    theirs.setdefault((name, point[0]), []).append(child.ask(name, point[0]))
    steps = [step_row(point, summary(times)) for point, times in ours.items()]
    result = {"rounds": rounds, "steps_a_round": vllm_scheduler.STEPS, "step": steps, "growth": growth(steps)}
    return result | ({"vllm": beside(child, theirs, ours)} if child else {})


def step_row(point: tuple[int, int, int], times: dict[str, float]) -> dict[str, Any]:
    """One line of the table of steps."""
    running, blocks_each, before = point
    return {
        "running": running,
        "blocks": running * blocks_each + 1,
        "steps_before": before,
        **times,
        "cpu_us_a_request": round(times["cpu_us"] / running, 2),
    }


# ----- vLLM's scheduler -----


class Child:
    """vLLM's scheduler in a process of its own, which sleeps until it is asked."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.versions = self._answer()

    def ask(self, name: str, running: int) -> dict[str, float]:
        """Times of a step of vLLM's scheduler class `name`, in microseconds."""
        assert self.process.stdin
        print(name, running, file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        if not (line := self.process.stdout.readline()):
            raise SystemExit("vLLM's process ended early: its own message stands above")
        return json.loads(line)


@contextmanager
def vllm_child(python: Path | None) -> Iterator[Child | None]:
    """A `Child` in the environment of that Python, or none."""
    if python is None:
        yield None
        return
    command = [str(python), vllm_scheduler.__file__, "--serve", "--model", str(resolve("smollm2"))]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Child(process)


def beside(
    child: Child,
    theirs: dict[tuple[str, int], list[dict[str, float]]],
    ours: dict[tuple[int, int, int], list[dict[str, float]]],
) -> dict[str, Any]:
    """vLLM's times, and how many times ours they are: the median over the rounds, each with its own ratio."""
    rows = []
    for (name, running), rounds in theirs.items():
        own = ours[running, BLOCKS_EACH, 0]
        ratios = [them["cpu_us"] / us["cpu_us"] for them, us in zip(rounds, own, strict=True)]
        times = {"scheduler": name, "running": running, **summary(rounds)}
        rows.append(times | {"times_ours": round(statistics.median(ratios), 2)})
    return {"versions": child.versions, "step": rows}


# ----- the policies -----


def azure_workload(count: int, rate: float) -> Workload:
    """Lengths of the Azure conversation trace that Llama 2 can hold, in a Poisson stream of `rate` a second."""
    prompts, outputs = azure_prompts(2 * count), azure_lengths(2 * count)
    fits = np.flatnonzero(prompts + outputs <= MODEL_LEN)[:count]
    return Workload.from_lengths(outputs[fits], prompts[fits], poisson_arrivals(len(fits), rate), "seconds")


class WatchedSimulator(Simulator):
    """A simulator that moves a progress bar with every request that arrives."""

    def __init__(self, *arguments: Any, bar: tqdm) -> None:
        super().__init__(*arguments)
        self.bar = bar

    def receive(self) -> None:
        before = self.arrived
        super().receive()
        if self.arrived > before:
            self.bar.update(self.arrived - before)


def simulation_speed(name: str, workload: Workload, slots: int, bar: tqdm) -> dict[str, Any]:
    """What the host simulates in a second of CPU time under one policy."""
    hardware = Hardware.parse(HARDWARE)
    bar.set_postfix_str(name)
    wall_start, start = time.perf_counter(), time.process_time()
    scheduler = Scheduler(
        slots,
        hardware.num_blocks(BLOCK_SIZE),
        BLOCK_SIZE,
        TOKEN_BUDGET,
        make_policy(name),
        max_model_len=MODEL_LEN,
        clock="seconds",
    )
    trace = WatchedSimulator(workload, scheduler, CostModel.from_hardware(hardware), bar=bar).run()
    took, wall = time.process_time() - start, time.perf_counter() - wall_start
    numbers = metrics(trace)
    return {
        "policy": name,
        "cpu_seconds": round(took, 2),
        "wall_seconds": round(wall, 2),
        "requests_per_second": round(len(workload) / took, 1),
        "steps_per_second": round(trace.num_steps / took, 1),
        "tokens_per_second": round(trace.tokens / took),
        "simulated_seconds": round(numbers["seconds"], 1),
        "preemptions": numbers["preemptions"],
    }


def measure_simulations(policies: Sequence[str], requests: int, rate: float, slots: int) -> dict[str, Any]:
    """Every policy on the same requests."""
    workload = azure_workload(requests, rate)
    with tqdm(total=len(policies) * len(workload), desc="requests", mininterval=1, smoothing=0) as bar:
        speeds = [simulation_speed(name, workload, slots, bar) for name in policies]
    return {
        "requests_a_policy": len(workload),
        "fewer_than_the_default": requests < REQUESTS,
        "hardware": HARDWARE,
        "slots": slots,
        "arrivals_per_second": rate,
        "policies": speeds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=REQUESTS, help="requests simulated under each policy")
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--rate", type=float, default=6.0, help="requests a second")
    parser.add_argument("--policies", nargs="*", default=list(POLICIES), choices=list(POLICIES))
    parser.add_argument("--rounds", type=int, default=5, help="times that each step is measured")
    parser.add_argument("--vllm-python", type=Path, help="Python of an environment with vLLM")
    parser.add_argument("--out", type=Path, help="folder for the record")
    options = parser.parse_args()
    with vllm_child(options.vllm_python) as child:
        result = measure_steps(child, options.rounds)
    result["simulation"] = measure_simulations(
        options.policies, options.requests, options.rate, options.slots
    )
    print(json.dumps(result, indent=1))
    if options.out:
        print(record("scheduler_host_time", result, options.out))


if __name__ == "__main__":
    main()
