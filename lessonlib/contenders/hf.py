"""Hugging Face `generate` as a contender: static batches, left padding.

A batch runs until its longest request has its tokens; what the others get beyond their own `max_tokens` counts as
raw tokens, not as useful ones. In a timed run on a GPU, "hf" has a static cache and a compiled decode step (CUDA
graphs): 1.6 times plain `generate` on 64 mixed (`benchmarks/results/compare_h100_generate.json`). "hf-dynamic" is plain
`generate`; on a CPU, and in runs that are not timed, both are.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch._inductor.cudagraph_trees import reset_cudagraph_trees
from transformers import AutoModelForCausalLM
from transformers.generation import StoppingCriteria, StoppingCriteriaList

from lessonlib.contenders.hf_trace import BatchTimes, static_trace
from lessonlib.contenders.job import Job, Measurement, OutOfMemory, Row
from lessonlib.contenders.registry import Entry
from lessonlib.trace import Header

RECOMPILE_LIMIT = (
    64  # every shape is compiled: beyond the default limit torch falls back to eager without a word
)


class Clock(StoppingCriteria):
    """Takes the time of each step's tokens, in seconds of `time.perf_counter`. It stops no request."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        if input_ids.is_cuda:
            torch.cuda.current_stream().synchronize()  # `generate` waits here anyway, to ask who is done
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class Generate:
    """See `engine.Engine`.

    Args:
        is_compiled: whether the cache is static and the decode step compiled.
    """

    packages = ("transformers", "torch", "accelerate")

    def __init__(self, job: Job, is_compiled: bool) -> None:
        self.device, self.slots = job.device, job.slots
        self.is_compiled = is_compiled
        if is_compiled:
            torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
        self.model = load_model(job)
        self.settings: dict[str, Any] = {
            "dtype": job.dtype,
            "cache": "static, compiled" if is_compiled else "dynamic",
            "attention": self.model.config._attn_implementation,
            "padding": "left, to the longest prompt of a batch",
            "max_num_seqs": job.slots,
            "max_num_batched_tokens": None,  # a batch's prompts are read at once, however many tokens they have
            "block_size": None,  # each request has a row of the cache, as long as the batch's longest
            "num_blocks": None,
        }
        self._row, self._fits = "", 0

    def run(self, row: Row) -> Measurement:
        self._begin(row)
        while True:
            try:
                return self._run_batches(row, self._fits)
            except torch.OutOfMemoryError as error:
                reason = str(error).splitlines()[0]
            self._forget_cache()
            if row.batch or self._fits == 1:
                raise OutOfMemory(f"out of memory at batch {self._fits}: {reason}")
            self._fits = -(-self._fits // 2)

    def _begin(self, row: Row) -> None:
        """Forget the shapes of the row before, and start with the largest batch. Within a row it only gets smaller."""
        if row.name == self._row:
            return
        self._row, self._fits = row.name, min(row.batch or self.slots, len(row))
        if self.is_compiled:
            torch._dynamo.reset()
            reset_cudagraph_trees()  # frees the memory of the last row's graphs
            self._forget_cache()

    def _forget_cache(self) -> None:
        """Remove a static cache and its length from the model: otherwise a shorter row would read all of it."""
        for kept in ("_cache", "_previous_max_cache_length"):  # by older and newer versions of transformers
            if hasattr(self.model, kept):
                delattr(self.model, kept)
        release_memory()

    def _run_batches(self, row: Row, batch: int) -> Measurement:
        tokens: list[list[int]] = []
        batches: list[BatchTimes] = []
        start = time.perf_counter()
        for first in range(0, len(row), batch):
            requests = range(first, min(first + batch, len(row)))
            began, clock = time.perf_counter() - start, Clock()
            rows = self._generate(
                row.prompts[first : requests.stop], max(row.max_tokens[first : requests.stop]), clock
            )
            tokens += [ids[: row.max_tokens[at]] for ids, at in zip(rows, requests, strict=True)]
            batches.append(BatchTimes(requests, began, [at - start for at in clock.times]))
        seconds = time.perf_counter() - start
        raw = sum(len(each.requests) * len(each.ends) for each in batches)
        trace = static_trace(row, Header(batch, "seconds", "transformers", "static"), batches)
        settings = {"batch": batch, "cache_tokens": cache_tokens(row, batch)}
        return Measurement(seconds, tokens, raw, trace.token_times(), settings, trace.to_dict())

    def _generate(self, prompts: Sequence[list[int]], most: int, clock: Clock) -> list[list[int]]:
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for index, prompt in enumerate(prompts):
            ids[index, longest - len(prompt) :] = torch.tensor(prompt)
            mask[index, longest - len(prompt) :] = 1
        with torch.inference_mode():
            out = self.model.generate(
                ids.to(self.device),
                attention_mask=mask.to(self.device),
                max_new_tokens=most,
                do_sample=False,
                pad_token_id=0,
                stopping_criteria=StoppingCriteriaList([clock]),
                **({"cache_implementation": "static"} if self.is_compiled else {}),
            )
        return out[:, longest:].tolist()


def cache_tokens(row: Row, batch: int) -> int:
    """Tokens in the K/V cache of the largest batch at its end, when every request has as many as the longest."""
    starts = range(0, len(row), batch)
    return max(
        len(row.prompts[at : at + batch])
        * (max(map(len, row.prompts[at : at + batch])) + max(row.max_tokens[at : at + batch]))
        for at in starts
    )


def load_model(job: Job) -> Any:
    """The model on its device; an end-of-sequence token ends nothing."""
    dtype = getattr(torch, job.dtype)
    model: Any = AutoModelForCausalLM.from_pretrained(job.model, dtype=dtype)
    model.to(job.device)
    model.generation_config.eos_token_id = None
    model.generation_config.temperature = model.generation_config.top_p = model.generation_config.top_k = None
    return model.eval()


def release_memory() -> None:
    """Return unused memory to the system and the card."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def make(entry: Entry, job: Job) -> Generate:
    """The contender, its model loaded."""
    return Generate(job, is_compiled=entry.options["compile"] and job.device == "cuda" and job.is_timed)
