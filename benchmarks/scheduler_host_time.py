"""What scheduling costs the host, and how fast each policy is simulated. Prints JSON.

    python benchmarks/scheduler_host_time.py                   # 100,000 requests a policy: half an hour
    python benchmarks/scheduler_host_time.py --requests 2000   # a quick look

Part 1 times `schedule` + `update` of a decode step, at 8 to 1,024 running requests, in a small and a large
pool, early and late in long answers: it should grow with the requests of the step and with nothing else.
Part 2 simulates requests of the Azure conversation trace's lengths on an H100 with Llama-2-7B.
Times are CPU times of this process, so that a busy machine disturbs them less.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from lessonlib import __version__
from lessonlib.scheduling.costs import CostModel, Hardware
from lessonlib.scheduling.policies import POLICIES
from lessonlib.scheduling.scheduler import Scheduler, StepPlan
from lessonlib.scheduling.simulator import metrics, simulate
from lessonlib.workload import Workload, azure_lengths, azure_prompts, poisson_arrivals

RUNNING = (8, 16, 32, 64, 128, 256, 512, 1024)
HARDWARE = "h100:llama-2-7b"


def one_step(scheduler: Scheduler) -> StepPlan:
    plan = scheduler.schedule()
    scheduler.update(plan, dict.fromkeys(plan.sampled_ids, 0))
    return plan


def step_time(
    running: int, blocks_each: int = 40, steps_before: int = 0, steps: int = 200
) -> dict[str, float]:
    """Median CPU microseconds of a step with everyone decoding."""
    scheduler = Scheduler(running, running * blocks_each + 1, 16, max(running, 2048))
    for row in range(running):
        scheduler.add_request(str(row), 16, 600)
    while len(one_step(scheduler).decodes) < running:
        pass
    for _ in range(steps_before):
        one_step(scheduler)
    times = []
    for _ in range(steps):
        start = time.process_time()
        one_step(scheduler)
        times.append(1e6 * (time.process_time() - start))
    median = statistics.median(times)
    return {
        "running": running,
        "blocks": scheduler.kv_cache.num_blocks,
        "steps_before": steps_before,
        "median_us": round(median, 1),
        "p99_us": round(statistics.quantiles(times, n=100)[-1], 1),
        "us_per_request": round(median / running, 2),
    }


def azure_workload(count: int, rate: float) -> Workload:
    """Lengths of the Azure conversation trace that Llama 2 can hold, in a Poisson stream."""
    prompts, outputs = azure_prompts(2 * count), azure_lengths(2 * count)
    fits = np.flatnonzero(prompts + outputs <= 4096)[:count]
    return Workload.from_lengths(outputs[fits], prompts[fits], poisson_arrivals(len(fits), rate), "seconds")


def simulation_speed(name: str, workload: Workload, slots: int) -> dict[str, Any]:
    hardware = Hardware.parse(HARDWARE)
    start = time.process_time()
    trace = simulate(
        workload,
        name,
        slots,
        hardware.num_blocks(),
        token_budget=2048,
        cost_model=CostModel.from_hardware(hardware),
        max_model_len=4096,
    )
    took = time.process_time() - start
    numbers = metrics(trace)
    return {
        "policy": name,
        "requests": len(workload),
        "cpu_seconds": round(took, 2),
        "requests_per_second": round(len(workload) / took, 1),
        "steps_per_second": round(trace.num_steps / took, 1),
        "tokens_per_second": round(trace.tokens / took),
        "simulated_seconds": round(numbers["seconds"], 1),
        "preemptions": numbers["preemptions"],
    }


def cpu_name() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=100_000, help="requests simulated under each policy")
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--rate", type=float, default=6.0, help="requests a second")
    parser.add_argument("--policies", nargs="*", default=list(POLICIES), choices=list(POLICIES))
    arguments = parser.parse_args()
    steps = [step_time(running) for running in RUNNING]
    steps += [step_time(256, blocks_each=400), step_time(256, steps_before=390)]
    workload = azure_workload(arguments.requests, arguments.rate)
    report = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": cpu_name(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "lessonlib": __version__},
        "step": steps,
        "hardware": HARDWARE,
        "arrivals_per_second": arguments.rate,
        "simulation": [simulation_speed(name, workload, arguments.slots) for name in arguments.policies],
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
