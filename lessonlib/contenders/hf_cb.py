"""transformers' own continuous batching as a contender: requests are admitted and finish step by step, K/V is paged.

The manager and its thread are started outside the clock and kept from run to run, like any engine. Blocks are not
shared between requests: each repetition computes its prompts again, as for every contender.
"""

from __future__ import annotations

import time
from typing import Any

from transformers import GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from lessonlib.contenders.hf import load_model, release_memory
from lessonlib.contenders.job import Job, Measurement, Row
from lessonlib.contenders.registry import Entry

ATTENTION = "paged|sdpa"
NO_TOKEN = -1  # as the end-of-sequence token: no token ends an answer
CPU_BATCH_TOKENS = 2048  # as many as the other engines compute in a step at most
POLL_SECONDS = 1.0  # between two checks that the generation thread is alive


class GenerateBatch:
    """See `engine.Engine`."""

    packages = ("transformers", "torch", "accelerate")

    def __init__(self, job: Job) -> None:
        self.model = load_model(job)
        self.model.set_attn_implementation(ATTENTION)
        self.config = ContinuousBatchingConfig(allow_block_sharing=False, max_requests_per_batch=job.slots)
        if job.device == "cpu":  # on a card transformers measures how much fits
            self.config.num_blocks = num_blocks(job, self.model.config)
            self.config.max_batch_tokens = CPU_BATCH_TOKENS
        self.manager: Any = None
        self._row = ""
        self.settings: dict[str, Any] = {
            "dtype": job.dtype,
            "attention": ATTENTION,
            "max_num_seqs": job.slots,
            "block_size": page_size(self.config),
            "block_sharing": False,
        }

    def run(self, row: Row) -> Measurement:
        self._begin(row)
        start = time.perf_counter()
        names = [
            self.manager.add_request(ids, max_new_tokens=most, eos_token_id=NO_TOKEN, record_timestamps=True)
            for ids, most in zip(row.prompts, row.max_tokens, strict=True)
        ]
        outputs = self._collect(len(names))
        seconds = time.perf_counter() - start
        tokens = [outputs[name].generated_tokens for name in names]
        times = [[at - start for at in outputs[name].timestamps or ()] for name in names]
        config = self.manager.continuous_batching_config
        settings = {
            "cuda_graphs": str(config.use_cuda_graph),
            "max_num_batched_tokens": config.max_batch_tokens,  # on a card transformers chooses these two itself
            "num_blocks": config.num_blocks,
        }
        return Measurement(seconds, tokens, sum(map(len, tokens)), times, settings)

    def _begin(self, row: Row) -> None:
        """Make a manager for a new row, sized for its longest request."""
        if row.name == self._row:
            return
        self._row = row.name
        self.close()
        generation = GenerationConfig(
            max_new_tokens=max(row.max_tokens), do_sample=False, eos_token_id=NO_TOKEN, pad_token_id=0
        )
        self.manager = self.model.init_continuous_batching(generation, self.config)
        self.manager.warmup()
        self.manager.start()

    def _collect(self, count: int) -> dict[str, Any]:
        """The finished requests by name. Raises `RuntimeError` if one failed or the generation thread has ended."""
        outputs: dict[str, Any] = {}
        while len(outputs) < count:
            output = self.manager.get_result(timeout=POLL_SECONDS)
            if output is None:
                if not self.manager.is_running():
                    raise RuntimeError("transformers' generation thread ended")
            elif output.error is not None:
                raise RuntimeError(f"a request failed in transformers: {output.error}")
            elif output.is_finished():
                outputs[output.request_id] = output
        return outputs

    def close(self) -> None:
        """Stop the thread and free its memory."""
        if self.manager is not None:
            self.manager.stop(block=True)
            self.manager = None
            release_memory()


def page_size(config: Any) -> int:
    """Tokens in a block of K/V. transformers 5.17.0 calls it block_size, later versions page_size."""
    return getattr(config, "page_size", None) or config.block_size


def num_blocks(job: Job, config: Any) -> int:
    """Blocks for as many bytes of K/V as the other paged engines have on a CPU."""
    page = page_size(ContinuousBatchingConfig)
    heads = config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    size = 4 if job.dtype == "float32" else 2
    return job.kv_gib * 2**30 // (2 * heads * page * size)


def make(entry: Entry, job: Job) -> GenerateBatch:
    """The contender, its model loaded."""
    return GenerateBatch(job)
