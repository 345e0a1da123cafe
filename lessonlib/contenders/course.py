"""The course's engine as a contender."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from lessonlib.contenders.job import Job, Ride, Row
from lessonlib.contenders.online import drive
from lessonlib.engine import LLM, SamplingParams
from lessonlib.engine.checkpoint import LlamaConfig, resolve
from lessonlib.engine.llm import DTYPES
from lessonlib.trace import Kind, Trace

BLOCK_SIZE = 16  # tokens


class Course:
    """See `child.Contender`."""

    packages = ("continuous-batching-course", "torch", "triton", "numpy")

    def __init__(self, job: Job) -> None:
        self.llm = LLM(
            job.model,
            dtype=job.dtype,
            device=job.device,
            max_num_seqs=job.slots,
            max_model_len=job.max_model_len,
            block_size=BLOCK_SIZE,
            num_blocks=num_blocks(job) if job.device == "cpu" else None,
            gpu_memory_utilization=job.gpu_memory_utilization,
            load_format=job.load_format,
            skip_tokenizer_init=True,
        )
        self.settings: dict[str, Any] = {
            "dtype": job.dtype,
            "max_num_seqs": self.llm.max_num_seqs,
            "max_num_batched_tokens": self.llm.max_num_batched_tokens,
            "num_blocks": self.llm.num_blocks,
            "block_size": self.llm.block_size,
            "prefix_caching": False,
            "async_scheduling": self.llm.async_scheduling,
            "cuda_graphs": job.device == "cuda",
        }

    def run(self, row: Row) -> Ride:
        prompts = [{"prompt_token_ids": ids} for ids in row.prompts]
        params = [SamplingParams(max_tokens=most, temperature=0, ignore_eos=True) for most in row.max_tokens]
        if row.arrivals:
            self.llm.start_ride()
            ride = drive(
                row,
                add=lambda at: self.llm.add_request(str(at), prompts[at], params[at]),
                step=lambda: [(int(each.request_id), each.outputs[0].token_ids) for each in self.llm.step()],
                has_unfinished=self.llm.has_unfinished_requests,
                is_whole=True,
            )
            return replace(ride, trace=self.llm.trace.to_dict())
        started = time.perf_counter()
        outputs = self.llm.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - started
        trace = self.llm.trace
        tokens = [each.outputs[0].token_ids for each in outputs]
        return Ride(seconds, tokens, sum(map(len, tokens)), token_times(trace), trace=trace.to_dict())


def token_times(trace: Trace) -> list[list[float]]:
    """When each request's tokens were there, in the Trace's clock: the end of the step that gave each."""
    ends = trace.steps["start"] + trace.steps["duration"]
    times: list[list[float]] = [[] for _ in range(trace.num_requests)]
    rows = trace.rows(Kind.DECODE)
    for request, step, count in zip(rows["request"], rows["step"], rows["tokens"], strict=True):
        times[request] += ends[step : step + count].tolist()
    return times


def num_blocks(job: Job) -> int:
    """K/V blocks in `job.kv_gib`, so that every paged engine has the same memory on a CPU."""
    config = LlamaConfig.load(resolve(job.model, job.load_format))
    heads = config.num_layers * config.num_kv_heads * config.head_dim
    block_bytes = 2 * heads * BLOCK_SIZE * DTYPES[job.dtype].itemsize
    return job.kv_gib * 2**30 // block_bytes


def make(name: str, job: Job) -> Course:
    """The contender, its model loaded."""
    return Course(job)
