"""vLLM's own V1 scheduler, driven alone: the host time of a decode step. Prints JSON.

    python benchmarks/vllm_scheduler.py --model FOLDER [--running 8 64 256 1024]

Run it with the Python of an environment that has vLLM; it needs nothing of the course. No model runs: every
request gets a made-up token after each step. `--serve` reads jobs from standard input, one a line, such as
`Scheduler 256`, and answers each with a line of JSON, so that another benchmark can take turns with it.

What is timed is `schedule()` and `update_from_output()`, without statistics and without prefix caching.
`update_from_output` also makes the outputs that vLLM's engine sends to its clients; ours makes the Trace.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

BLOCK_SIZE = 16  # tokens
PROMPT = 32  # tokens
MAX_TOKENS = 600  # output tokens, more than any run gets to
BLOCKS_EACH = 40  # K/V blocks a request, enough for all its tokens
MAX_MODEL_LEN = 1024  # tokens
STEPS = 200
SCHEDULERS = ("Scheduler", "AsyncScheduler")
RUNNING = (8, 64, 256, 1024)


def time_steps(
    schedule: Callable[[], Any],
    invent: Callable[[Any], Any],
    report: Callable[[Any, Any], Any],
    steps: int = STEPS,
) -> dict[str, float]:
    """Microseconds of a step, planned by `schedule`, reported with the untimed tokens of `invent`.

    Returns:
        Medians and the 99th percentile over the steps: CPU time of this process, and wall time. Objects
        that were there before are kept from the garbage collector, as vLLM's engine does at its start.
    """
    cpu, wall = [], []
    gc.collect()
    gc.freeze()
    for _ in range(steps):
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        plan = schedule()
        cpu_planned, wall_planned = time.process_time(), time.perf_counter()
        output = invent(plan)
        wall_told, cpu_told = time.perf_counter(), time.process_time()
        report(plan, output)
        cpu_end, wall_end = time.process_time(), time.perf_counter()
        cpu.append(1e6 * (cpu_planned - cpu_start + cpu_end - cpu_told))
        wall.append(1e6 * (wall_planned - wall_start + wall_end - wall_told))
    gc.unfreeze()
    return {
        "cpu_us": round(statistics.median(cpu), 1),
        "cpu_p99_us": round(statistics.quantiles(cpu, n=100)[-1], 1),
        "wall_us": round(statistics.median(wall), 1),
    }


def vllm_config(model: str, running: int, is_async: bool) -> Any:
    """vLLM's configuration for `running` requests at once; of the model's folder only the config is read."""
    from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig

    model_config = ModelConfig(
        model=model, dtype="bfloat16", skip_tokenizer_init=True, max_model_len=MAX_MODEL_LEN
    )
    scheduler_config = SchedulerConfig(
        max_num_seqs=running,
        max_num_batched_tokens=max(running * PROMPT, MAX_MODEL_LEN),
        max_model_len=MAX_MODEL_LEN,
        is_encoder_decoder=False,
        enable_chunked_prefill=True,
        async_scheduling=is_async,
    )
    cache_config = CacheConfig(block_size=BLOCK_SIZE, enable_prefix_caching=False)
    cache_config.num_gpu_blocks = running * BLOCKS_EACH + 1
    return VllmConfig(model_config=model_config, scheduler_config=scheduler_config, cache_config=cache_config)


def kv_cache_config(num_blocks: int) -> Any:
    """K/V memory of one layer; how many bytes a block has is no matter to the scheduler."""
    import torch
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec

    spec = FullAttentionSpec(block_size=BLOCK_SIZE, num_kv_heads=1, head_size=1, dtype=torch.float32)
    return KVCacheConfig(
        num_blocks=num_blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)]
    )


def make_scheduler(name: str, model: str, running: int) -> Any:
    """The scheduler class `name` of vLLM, with `running` requests waiting."""
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.structured_output import StructuredOutputManager

    kind = {"Scheduler": Scheduler, "AsyncScheduler": AsyncScheduler}[name]
    config = vllm_config(model, running, is_async=name == "AsyncScheduler")
    scheduler = kind(
        vllm_config=config,
        kv_cache_config=kv_cache_config(config.cache_config.num_gpu_blocks),
        structured_output_manager=StructuredOutputManager(config),
        block_size=BLOCK_SIZE,
        log_stats=False,
    )
    for row in range(running):
        scheduler.add_request(make_request(str(row)))
    return scheduler


def make_request(name: str) -> Any:
    """A request that goes on to `MAX_TOKENS`, whatever its tokens."""
    from vllm.sampling_params import SamplingParams
    from vllm.v1.request import Request

    sampling = SamplingParams(ignore_eos=True, max_tokens=MAX_TOKENS)
    return Request(
        request_id=name, prompt_token_ids=[1] * PROMPT, sampling_params=sampling, pooling_params=None
    )


def invented_output(plan: Any) -> Any:
    """One token for every request of the step: the budget lets all prompts be read in one piece."""
    from vllm.v1.outputs import ModelRunnerOutput

    names = list(plan.num_scheduled_tokens)
    rows = {name: row for row, name in enumerate(names)}
    return ModelRunnerOutput(req_ids=names, req_id_to_index=rows, sampled_token_ids=[[0] for _ in names])


def measure(name: str, model: str, running: int, steps: int = STEPS) -> dict[str, Any]:
    """Host time of a step of vLLM's scheduler `name` with `running` requests, all decoding."""
    scheduler = make_scheduler(name, model, running)
    plan = scheduler.schedule()  # everyone's prompt; from here on, all decode
    scheduler.update_from_output(plan, invented_output(plan))
    times = time_steps(scheduler.schedule, invented_output, scheduler.update_from_output, steps)
    tokens = {request.num_output_tokens for request in scheduler.running}
    assert len(scheduler.running) == running, "not everyone was on board"
    assert tokens == {steps + 1}, "not everyone got a token in every step"
    return {"scheduler": name, "running": running, **times}


def versions() -> dict[str, str]:
    """What it was measured with."""
    distribution = metadata.packages_distributions()["vllm"][0]
    return {
        "python": platform.python_version(),
        distribution: metadata.version(distribution),
        "torch": metadata.version("torch"),
    }


def serve(model: str) -> None:
    """Answer jobs from standard input with lines of JSON, the first of which are the versions."""
    answers = os.fdopen(os.dup(1), "w")  # vLLM's own words go where errors go
    os.dup2(2, 1)
    print(json.dumps(versions()), file=answers, flush=True)
    for line in sys.stdin:
        name, running = line.split()
        print(json.dumps(measure(name, model, int(running))), file=answers, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a folder with the config.json of a model")
    parser.add_argument("--running", type=int, nargs="+", default=list(RUNNING), help="requests at once")
    parser.add_argument("--serve", action="store_true", help="read jobs from standard input")
    options = parser.parse_args()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if options.serve:
        serve(options.model)
        return
    rows = [measure(name, options.model, running) for running in options.running for name in SCHEDULERS]
    print(json.dumps({"versions": versions(), "steps": rows}, indent=1))


if __name__ == "__main__":
    main()
