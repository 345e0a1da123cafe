"""The seed of the engine: notebook 02's scheduler, driving a real model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lessonlib.engine.checkpoint import COURSE_MODEL, resolve
from lessonlib.engine.contiguous import ContiguousCache
from lessonlib.engine.model import Llama
from lessonlib.engine.outputs import CompletionOutput, RequestOutput, SamplingParams
from lessonlib.errors import CourseError
from lessonlib.scheduling.slots import CONTINUOUS, NOBODY, SlotScheduler, check_policy
from lessonlib.trace import Header, Kind, Trace
from lessonlib.utilization import check_slots
from lessonlib.workload import Workload

Prompt = str | dict[str, list[int]]
"""A text, or {"prompt_token_ids": [...]}, as in vLLM."""


class LLM:
    """Answers prompts, `max_num_seqs` at a time, greedily.

    Args:
        model: a folder, a hub name, or "smollm2".
        policy: "static" or "continuous".
        max_num_seqs: slots.
        dtype: of weights and cache; float32 gives the same tokens whatever the batch.

    `trace` is the Trace of the last run, its clock in seconds.
    """

    def __init__(
        self,
        model: str | Path = COURSE_MODEL,
        policy: str = CONTINUOUS,
        max_num_seqs: int = 8,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        from transformers import AutoTokenizer

        self.policy, self.max_num_seqs = check_policy(policy), check_slots(max_num_seqs)
        folder = resolve(model)
        self.model = Llama(folder, dtype)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.trace: Trace | None = None

    def chat(
        self,
        messages: Sequence[list[dict[str, str]]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        """Answer conversations, each a list of {"role", "content"}; the model's chat template is applied."""
        texts = [
            self.tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
            for conversation in messages
        ]
        return self.generate(texts, sampling_params, use_tqdm)

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        """Answer every prompt; the answers come back in the order of the prompts.

        Raises `CourseError` for no prompts, an empty one, or one that does not fit the model's context.
        """
        params = self._params_for(prompts, sampling_params)
        prompt_ids = [
            self._encode(prompt, i, p) for i, (prompt, p) in enumerate(zip(prompts, params, strict=True))
        ]
        ride = _Ride(self, prompt_ids, params)
        with torch.inference_mode(), tqdm(total=len(prompts), desc="requests", disable=not use_tqdm) as bar:
            self.trace = ride.run(bar)
        return [self._output(i, prompt, prompt_ids[i], ride.outputs[i]) for i, prompt in enumerate(prompts)]

    def _params_for(
        self, prompts: Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None
    ) -> list[SamplingParams]:
        if isinstance(prompts, str | dict):
            raise CourseError("prompts is one prompt: give a list of prompts")
        if not prompts:
            raise CourseError("no prompts: give at least one")
        if params is None or isinstance(params, SamplingParams):
            return [params or SamplingParams()] * len(prompts)
        if len(params) != len(prompts):
            raise CourseError(
                f"{len(params)} sampling params for {len(prompts)} prompts: give one, or one each"
            )
        return list(params)

    def _encode(self, prompt: Prompt, place: int, params: SamplingParams) -> list[int]:
        ids = prompt["prompt_token_ids"] if isinstance(prompt, dict) else self.tokenizer(prompt)["input_ids"]
        if not ids:
            raise CourseError(f"prompt {place} is empty: give it at least one token")
        limit = self.model.config.max_positions
        if len(ids) + params.max_tokens > limit:
            raise CourseError(
                f"prompt {place} has {len(ids)} tokens and asks for {params.max_tokens} more; the model's context "
                f"holds {limit}: shorten the prompt or lower max_tokens"
            )
        return ids

    def _output(
        self, place: int, prompt: Prompt, prompt_ids: list[int], token_ids: list[int]
    ) -> RequestOutput:
        text = prompt if isinstance(prompt, str) else self.tokenizer.decode(prompt_ids)
        ended = token_ids[-1] in self.model.config.eos_token_ids
        answer = self.tokenizer.decode(token_ids, skip_special_tokens=True)
        completion = CompletionOutput(0, answer, token_ids, "stop" if ended else "length")
        return RequestOutput(str(place), text, prompt_ids, [completion])


class _Ride:
    """One call of `generate`: the scheduler's three moves, with a real model inside the step."""

    def __init__(self, llm: LLM, prompt_ids: list[list[int]], params: list[SamplingParams]) -> None:
        self.llm, self.prompt_ids, self.params = llm, prompt_ids, params
        self.outputs: list[list[int]] = [[] for _ in prompt_ids]
        workload = Workload.from_lengths([p.max_tokens for p in params], [len(ids) for ids in prompt_ids])
        header = Header(slots=llm.max_num_seqs, clock="seconds", maker="course engine", policy=llm.policy)
        self.scheduler = SlotScheduler(workload, llm.max_num_seqs, llm.policy, header=header)
        longest = max(len(ids) + p.max_tokens for ids, p in zip(prompt_ids, params, strict=True))
        model = llm.model
        self.cache = ContiguousCache(model.config, llm.max_num_seqs, longest, model.dtype, model.device)

    def run(self, bar: tqdm) -> Trace:
        """Evict, admit, step, until everyone is home."""
        scheduler = self.scheduler
        while True:
            started = time.perf_counter()
            bar.update(scheduler.evict())
            if scheduler.done == len(self.prompt_ids):
                return scheduler.trace.build()
            boarded = scheduler.admit()
            riding = [slot for slot in range(self.llm.max_num_seqs) if scheduler.occupant[slot] != NOBODY]
            self._decode([slot for slot in riding if slot not in boarded])
            for slot in boarded:
                self._prefill(slot)
            scheduler.step(duration=time.perf_counter() - started)

    def _prefill(self, slot: int) -> None:
        """The whole prompt in one pass; its last position gives the first token."""
        request = int(self.scheduler.occupant[slot])
        ids = torch.tensor(self.prompt_ids[request])
        self.scheduler.trace.add(Kind.PREFILL, request, slot, tokens=len(ids))
        hidden = self.llm.model.forward(ids, torch.arange(len(ids)), self.cache.prefill(slot))
        self._give([slot], hidden[-1:])

    def _decode(self, slots: list[int]) -> None:
        """One token for each: the last one given is read, the next one is chosen."""
        if not slots:
            return
        requests = [int(self.scheduler.occupant[slot]) for slot in slots]
        ids = torch.tensor([self.outputs[r][-1] for r in requests])
        positions = torch.tensor([len(self.prompt_ids[r]) + len(self.outputs[r]) - 1 for r in requests])
        hidden = self.llm.model.forward(ids, positions, self.cache.decode(torch.tensor(slots), positions))
        self._give(slots, hidden)

    def _give(self, slots: list[int], hidden: torch.Tensor) -> None:
        tokens = self.llm.model.logits(hidden).argmax(-1).tolist()
        for slot, token in zip(slots, tokens, strict=True):
            request = int(self.scheduler.occupant[slot])
            self.outputs[request].append(token)
            if token in self.llm.model.config.eos_token_ids and not self.params[request].ignore_eos:
                self.scheduler.remaining[slot] = 1  # the token it is about to be given is its last
