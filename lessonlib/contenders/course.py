"""The course's engine as a contender, whole and in its earlier forms: each adds one change to the one before."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from lessonlib.contenders.compare import bytes_read
from lessonlib.contenders.job import BLOCK_SIZE, Job, Ride, Row
from lessonlib.contenders.mine import load
from lessonlib.contenders.online import drive
from lessonlib.engine import LLM, SamplingParams
from lessonlib.engine.checkpoint import LlamaConfig, resolve
from lessonlib.scheduling.plugged import plug
from lessonlib.scheduling.policies import Continuous, PrefillFirst, PrefillFirstReserved, StaticBatching

MINE = "mine"


class Course:
    """See `child.Contender`."""

    packages = ("continuous-batching-course", "torch", "triton", "numpy")

    def __init__(self, name: str, job: Job) -> None:
        settings = with_own_parts(job) if name == MINE else form(name, job)
        self.llm = LLM(
            job.model,
            dtype=job.dtype,
            device=job.device,
            max_model_len=job.max_model_len,
            block_size=BLOCK_SIZE,
            num_blocks=num_blocks(job),
            gpu_memory_utilization=job.gpu_memory_utilization,
            load_format=job.load_format,
            skip_tokenizer_init=True,
            **settings,
        )
        self.settings: dict[str, Any] = {
            "dtype": job.dtype,
            "policy": getattr(self.llm.policy, "name", self.llm.policy),
            "max_num_seqs": self.llm.max_num_seqs,
            "max_num_batched_tokens": self.llm.max_num_batched_tokens,
            "num_blocks": self.llm.num_blocks,
            "block_size": self.llm.block_size,
            "prefix_caching": False,
            "async_scheduling": self.llm.max_in_flight > 1,
            "cuda_graphs": job.device == "cuda" and not settings["enforce_eager"],
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
        return Ride(seconds, tokens, sum(map(len, tokens)), trace.token_times(), trace=trace.to_dict())


def with_own_parts(job: Job) -> dict[str, Any]:
    """The whole engine, a student's functions in the scheduler's seats."""
    assert job.own is not None
    parts = plug(load(*job.own))
    return {**form("course", job), "scheduler_cls": parts.scheduler_cls, "kv_cache_cls": parts.kv_cache_cls}


def form(name: str, job: Job) -> dict[str, Any]:
    """Settings of `LLM`: the changes up to the form of that name, one on another."""
    settings: dict[str, Any] = {}
    for each, changes in forms(job):
        settings |= changes
        if each == name:
            return settings
    raise ValueError(f"no form {name!r} of the course's engine")


def forms(job: Job) -> list[tuple[str, dict[str, Any]]]:
    """The engine from a static batch on: each form's name and what it changes."""
    bare = {"max_num_seqs": job.slots, "enforce_eager": True, "async_scheduling": False}
    return [
        ("course-static", {**bare, "policy": StaticBatching()}),
        ("course-continuous", {"policy": PrefillFirstReserved()}),
        ("course-paged", {"policy": PrefillFirst(), "max_num_seqs": job.paged_slots or job.slots}),
        ("course-mixed", {"policy": Continuous()}),
        ("course", {"enforce_eager": False, "async_scheduling": None}),
    ]


def num_blocks(job: Job) -> int | None:
    """K/V blocks that the job names, else those in `job.kv_gib` on a CPU; None on a card, which is measured."""
    if job.num_blocks or job.device != "cpu":
        return job.num_blocks or None
    _, token_bytes = bytes_read(LlamaConfig.load(resolve(job.model, job.load_format)), job.dtype)
    return job.kv_gib * 2**30 // (BLOCK_SIZE * token_bytes)


def make(name: str, job: Job) -> Course:
    """The contender, its model loaded."""
    return Course(name, job)
