"""The course's engine as a contender: whole, in its earlier forms, and with a student's functions in it."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from lessonlib.contenders.arrivals import run_with_arrivals
from lessonlib.contenders.conversations import run_conversations
from lessonlib.contenders.job import BLOCK_SIZE, Job, Measurement, Row
from lessonlib.contenders.registry import Entry
from lessonlib.contenders.sizes import bytes_read
from lessonlib.engine import LLM, SamplingParams
from lessonlib.engine.checkpoint import LlamaConfig, resolve
from lessonlib.scheduling.plugged import plug


class Course:
    """See `engine.Engine`. The entry's options are settings of `LLM`."""

    packages = ("continuous-batching-course", "torch", "triton", "numpy")

    def __init__(self, entry: Entry, job: Job) -> None:
        options = entry.all_options
        self.llm = LLM(
            job.model,
            dtype=job.dtype,
            device=job.device,
            max_num_seqs=entry.max_num_seqs(job),
            max_model_len=job.max_model_len,
            block_size=BLOCK_SIZE,
            num_blocks=num_blocks(job),
            gpu_memory_utilization=job.gpu_memory_utilization,
            skip_tokenizer_init=True,
            enable_prefix_caching=job.prefix_caching,
            **options,
            **(own_parts(job) if entry.takes_own_parts else {}),
        )
        self.settings: dict[str, Any] = {
            "dtype": job.dtype,
            "policy": options["policy"],
            "max_num_seqs": self.llm.max_num_seqs,
            "max_num_batched_tokens": self.llm.max_num_batched_tokens,
            "num_blocks": self.llm.num_blocks,
            "block_size": self.llm.block_size,
            "prefix_caching": job.prefix_caching,
            "async_scheduling": self.llm.max_in_flight > 1,
            "cuda_graphs": job.device == "cuda" and not options["enforce_eager"],
        }
        if job.own and entry.takes_own_parts:
            self.settings["own_functions"] = list(job.own[1])

    def run(self, row: Row) -> Measurement:
        prompts = [{"prompt_token_ids": ids} for ids in row.prompts]
        how = {"temperature": 0, **row.sampling}
        params = [SamplingParams(max_tokens=count, ignore_eos=True, **how) for count in row.max_tokens]
        if row.follow_ups:
            return run_conversations(row, self.llm, params)
        if row.arrivals:
            self.llm.start_trace()
            measured = run_with_arrivals(
                row,
                add=lambda index: self.llm.add_request(str(index), prompts[index], params[index]),
                step=lambda: [(int(each.request_id), each.outputs[0].token_ids) for each in self.llm.step()],
                has_unfinished=self.llm.has_unfinished_requests,
                is_cumulative=True,
            )
            return replace(measured, trace=self.llm.trace.to_dict())
        started = time.perf_counter()
        outputs = self.llm.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - started
        trace = self.llm.trace
        tokens = [each.outputs[0].token_ids for each in outputs]
        return Measurement(seconds, tokens, sum(map(len, tokens)), trace.token_times(), trace=trace.to_dict())


def own_parts(job: Job) -> dict[str, Any]:
    """Settings of `LLM` for a scheduler and an allocator that call the student's functions."""
    assert job.own is not None
    parts = plug(load_functions(*job.own))
    return {"scheduler_cls": parts.scheduler_cls, "kv_cache_cls": parts.kv_cache_cls}


def load_functions(path: str, names: Sequence[str]) -> SimpleNamespace:
    """The named functions of a student's file."""
    spec = importlib.util.spec_from_file_location("own_parts", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return SimpleNamespace(**{name: getattr(module, name) for name in names})


def num_blocks(job: Job) -> int | None:
    """K/V blocks that the job names, else those in `job.kv_gib` on a CPU; None on a card, where the engine measures."""
    if job.num_blocks or job.device != "cpu":
        return job.num_blocks or None
    _, token_bytes = bytes_read(LlamaConfig.load(resolve(job.model)), job.dtype)
    return job.kv_gib * 2**30 // (BLOCK_SIZE * token_bytes)


def make(entry: Entry, job: Job) -> Course:
    """The contender, its model loaded."""
    return Course(entry, job)
