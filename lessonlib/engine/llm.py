"""The engine: a scheduler, a runner and a tokenizer behind vLLM's call.

    schedule -> launch -> (the next one is scheduled) -> result -> update

`generate` answers a list of prompts. `add_request`, `step` and `abort` let others board while some ride.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from lessonlib.engine.answers import Answer
from lessonlib.engine.checkpoint import COURSE_MODEL, resolve
from lessonlib.engine.extras.prompts import prompt_logprobs
from lessonlib.engine.extras.samples import board_others, first_answer, seeds_of
from lessonlib.engine.frontend import requests as reading
from lessonlib.engine.frontend.calls import Calls
from lessonlib.engine.frontend.checks import Whole, YesOrNo, checked_call
from lessonlib.engine.frontend.options import (
    AtLeastOne,
    Share,
    Slots,
    check_left_out,
    check_length,
    choose_device,
    choose_dtype,
)
from lessonlib.engine.frontend.params import SamplingParams
from lessonlib.engine.frontend.prompts import EncodedPrompt, Prompt, load_tokenizer
from lessonlib.engine.frontend.turns import check_process, in_turn
from lessonlib.engine.memory import check_blocks, explain_out_of_memory, num_blocks_that_fit, release_memory
from lessonlib.engine.model import Llama
from lessonlib.engine.ops import choose_ops
from lessonlib.engine.outputs import RequestOutput
from lessonlib.engine.runner import ModelRunner, PendingStep, Sampling
from lessonlib.errors import CourseError
from lessonlib.scheduling.block_pool import BlockPool
from lessonlib.scheduling.kv_cache import KVCache
from lessonlib.scheduling.plan import StepPlan
from lessonlib.scheduling.policies import make_policy
from lessonlib.scheduling.policy import Policy
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.trace import Trace


class LLM(Calls):
    """Answers prompts with a Llama, `max_num_seqs` at a time.

    Args:
        model: a folder, a hub name, or "smollm2"; or a `Llama` that is loaded already, whose dtype, device and
            operators then hold.
        tokenizer: a folder or hub name, where it is not beside the model.
        dtype: "float32", "bfloat16", "float16" or the torch type; "auto": float32 on a CPU, where it gives the
            same tokens whatever the batch; else bfloat16, or float16 where the card has none.
        device: "cpu", "cuda", or "auto".
        attention: "auto", "triton", "native" or "reference" (see `engine.ops`), or a function with the
            signature of `kernels.reference.paged_attention`: your own.
        policy: a `Policy` or the name of one ("static", "continuous", "vllm", …).
        scheduler_cls: called as `Scheduler` is: your own takes its place.
        kv_cache_cls: called with a `BlockPool` and whether prefixes are cached, as `KVCache` is.
        max_num_seqs: slots. By default 256 on a GPU, 8 on a CPU.
        max_num_batched_tokens: tokens a step computes at most. By default 8,192 on a GPU, 2,048 on a CPU.
        max_model_len: longest prompt and answer together; by default what the model was made for.
        num_blocks: K/V blocks, the null block included; by default as many as memory holds.
        num_gpu_blocks_override: vLLM's name for `num_blocks`.
        block_size: tokens a block.
        gpu_memory_utilization: share of the card for weights, activations and K/V.
        enable_prefix_caching: keep blocks whose tokens others may share, from one `generate` to the next too.
        enforce_eager: no CUDA graphs.
        async_scheduling: plan the next step while this one is computed. By default on a GPU only: on a CPU a
            step's tokens are there when the call returns.
        seed: of the draws of requests that bring no seed of their own; None: a new one each time.
        load_format: "auto", or "dummy" for random weights from a config.json alone.
        skip_tokenizer_init: take and give token ids alone.
        others: further options of vLLM, at values that change nothing here.

    Attributes:
        trace: the record of the last ride, its clock in seconds from the ride's start.

    Raises `CourseError` for what cannot be run here.
    """

    _answers: dict[str, Answer]  # by request
    _news: dict[str, Answer]  # what steps brought forward and `step` has not returned
    _in_flight: deque[tuple[StepPlan, PendingStep, float]]
    _under_way: Literal[
        "", "step", "generate"
    ]  # where it is set as a call begins, the one before was cut short

    @checked_call
    def __init__(
        self,
        model: str | Path | Llama = COURSE_MODEL,
        *,
        tokenizer: str | Path | None = None,
        dtype: str | torch.dtype = "auto",
        device: str = "auto",
        attention: str | Callable[..., torch.Tensor] = "auto",
        policy: str | Policy = "continuous",
        scheduler_cls: Callable[..., Scheduler] = Scheduler,
        kv_cache_cls: Callable[..., KVCache] = KVCache,
        max_num_seqs: Slots | None = None,
        max_num_batched_tokens: AtLeastOne | None = None,
        max_model_len: AtLeastOne | None = None,
        num_blocks: AtLeastOne | None = None,
        num_gpu_blocks_override: AtLeastOne | None = None,
        block_size: AtLeastOne = 16,
        gpu_memory_utilization: Share = 0.9,
        enable_prefix_caching: YesOrNo | None = False,
        enforce_eager: YesOrNo = False,
        async_scheduling: YesOrNo | None = None,
        seed: Whole | None = 0,
        load_format: str = "auto",
        skip_tokenizer_init: YesOrNo = False,
        **others: Any,
    ) -> None:
        check_left_out(others, LLM.__init__.__annotations__)
        check_process()
        self.lock, self.is_closed = threading.RLock(), False
        self.device = model.device if isinstance(model, Llama) else choose_device(device)
        on_gpu = self.device.type == "cuda"
        self.policy, self.scheduler_cls, self.kv_cache_cls = policy, scheduler_cls, kv_cache_cls
        self.max_num_seqs = max_num_seqs or (256 if on_gpu else 8)
        self.max_num_batched_tokens = max_num_batched_tokens or (8192 if on_gpu else 2048)
        self.block_size, self.enable_prefix_caching = block_size, bool(enable_prefix_caching)
        self.seed = secrets.randbits(63) if seed is None else seed
        self.max_in_flight = 2 if (on_gpu if async_scheduling is None else async_scheduling) else 1
        with explain_out_of_memory("loading the model"), torch.inference_mode():
            if not isinstance(model, Llama):
                ops = choose_ops(attention, self.device)
                folder, dtype = resolve(model, load_format), choose_dtype(dtype, self.device)
                model = Llama(folder, dtype, self.device, ops, load_format)
            self.model = model
            self.tokenizer = None if skip_tokenizer_init else load_tokenizer(tokenizer or model.folder)
            self.max_model_len = check_length(max_model_len, model.config.max_positions)
            sizes = (self.max_num_seqs, self.max_num_batched_tokens, self.max_model_len)
            asked = num_blocks or num_gpu_blocks_override
            fitting = asked or num_blocks_that_fit(self.model, block_size, *sizes, gpu_memory_utilization)
            self.num_blocks = check_blocks(self.model, fitting, block_size)
            graphs = on_gpu and not enforce_eager
            self.runner = ModelRunner(self.model, self.num_blocks, block_size, *sizes, use_graphs=graphs)
        self._kv_cache: KVCache | None = None
        self._requests_seen = 0
        self.default_params = self.get_default_sampling_params()
        self._begin_ride()

    # ----- all at once -----

    @in_turn
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        *,
        priority: int | Sequence[int] | None = None,
        **others: Any,
    ) -> list[RequestOutput]:
        """Answer every prompt; the answers come back in the order of the prompts.

        Without `sampling_params` the checkpoint's own defaults hold. Priorities, one or one each, are for policies
        that use them; the smaller is served first. `others` are further arguments of vLLM's at their defaults.

        Raises `CourseError` for no prompts, an empty one, or one that can never fit; nothing is computed then.
        An interruption takes everyone off board, and the next call works. Calls of several threads take turns.
        """
        asked = reading.requests(self, prompts, sampling_params, priority, others)
        self._require_idle()
        self._begin_ride()
        self._under_way = "generate"
        try:
            for index, request in enumerate(asked):
                self._board(str(index), *request)
            answers = list(self._answers.values())
            with tqdm(
                total=sum(each.params.n for each in answers), desc="requests", disable=not use_tqdm
            ) as bar:
                while self._is_riding:
                    bar.update(sum(answer.is_finished for answer in self._advance()))
            outputs = [answer.output() for answer in answers]
        except BaseException:
            self._recover()
            raise
        self._answers, self._news = {}, {}
        self._under_way = ""
        return outputs

    # ----- step by step -----

    @in_turn
    def add_request(
        self, request_id: str, prompt: Prompt, params: SamplingParams | None = None, *, priority: int = 0
    ) -> None:
        """Put a request in the queue; it boards in a later `step`.

        Raises `CourseError` for a prompt that cannot be answered; running requests go on.
        """
        self._recover()
        reading.check_request_id(request_id)
        request = reading.request(self, prompt, params, priority, f"request {request_id!r}")
        self._under_way = "step"
        try:
            self._board(request_id, *request)
        except CourseError:
            self._under_way = ""  # refused: nothing has changed
            raise
        self._under_way = ""

    def step(self) -> list[RequestOutput]:
        """Compute a step; the answers that it brought forward, as far as they go.

        An interruption, or an error of a part that is not the course's, takes the step back: everyone returns to
        the queue with the tokens of earlier steps, and the next call goes on with the same words.
        """
        outputs = self._step()
        # One line and no call: after any interrupt an answer is either returned or still to be returned.
        self._under_way, self._news = "", {}; return outputs  # fmt: skip  # noqa: E702

    @in_turn
    def _step(self) -> list[RequestOutput]:
        self._recover()
        self._under_way = "step"
        try:
            if self._is_riding:
                self._advance()
            outputs = [answer.output() for answer in self._news.values()]
            for answer, output in zip(self._news.values(), outputs, strict=True):
                if output.finished:
                    self._forget(answer)
        except BaseException as error:
            error.add_note("The step was taken back: the next step() goes on, abort() lets a request go.")
            self._recover()
            raise
        return outputs

    @in_turn
    def abort(self, request_id: str) -> RequestOutput:
        """Take a request off board at once; its answer so far. Raises `CourseError` for one that is not here."""
        self._recover()
        answer = self._answers.get(request_id)
        samples = answer.samples.values() if answer else ()
        riding = [each for each in samples if each.id in self.scheduler.requests]
        if answer is None or not riding:
            raise CourseError(f"no request {request_id!r} to abort: it never came, or it is done")
        self._under_way = "step"
        self._forget(answer)
        self._news.pop(request_id, None)
        for each in riding:
            self.scheduler.abort(each.id)
            each.abort()
        self._under_way = ""
        return answer.output()

    def _forget(self, answer: Answer) -> None:
        for each in answer.samples.values():
            self._answers.pop(each.id, None)

    def has_unfinished_requests(self) -> bool:
        """Whether a request is running or waiting, or finished in a step that was cut short before it said so."""
        return not self.is_closed and self._has_unfinished()

    @in_turn
    def _has_unfinished(self) -> bool:
        self._recover()
        return self._is_riding or bool(self._news)

    @property
    def _is_riding(self) -> bool:
        return self.scheduler.has_unfinished or bool(self._in_flight)

    @in_turn
    def start_trace(self) -> None:
        """Begin a new Trace. Cached prefixes stay. Raises `CourseError` while requests are running."""
        self._require_idle()
        self._begin_ride()

    def _begin_ride(self) -> None:
        if self._kv_cache is None:
            self._kv_cache = self._make_kv_cache()
        self.scheduler = self.scheduler_cls(
            self.max_num_seqs,
            block_size=self.block_size,
            token_budget=max(self.max_num_batched_tokens, self.max_num_seqs),
            policy=make_policy(self.policy) if isinstance(self.policy, str) else self.policy,
            max_model_len=self.max_model_len,
            max_in_flight=self.max_in_flight,
            kv_cache=self._kv_cache,
            clock="seconds",
            maker="course engine",
        )
        self._answers, self._news, self._in_flight = {}, {}, deque()
        self._epoch, self._last_end = time.perf_counter(), 0.0
        self._under_way = ""

    def _make_kv_cache(self) -> KVCache:
        return self.kv_cache_cls(BlockPool(self.num_blocks, self.block_size), self.enable_prefix_caching)

    @in_turn
    def reset_prefix_cache(self) -> None:
        """Forget every cached prefix. Raises `CourseError` while requests are running."""
        self._require_idle()
        self._kv_cache = None
        self._begin_ride()

    @property
    def trace(self) -> Trace:
        """The record of the ride so far."""
        return self.scheduler.build_trace()

    # ----- inside -----

    def _require_idle(self) -> None:
        self._recover()
        if self._is_riding or self._news:
            raise CourseError("requests are running: finish them with step or abort them before a new trace")

    def _board(self, request_id: str, prompt: EncodedPrompt, params: SamplingParams, priority: int) -> None:
        assert params.max_tokens is not None
        scores = prompt_logprobs(self.model, prompt.token_ids, params.prompt_logprobs, self.tokenizer)
        state = self.scheduler.add_request(
            request_id,
            prompt.token_ids,
            params.max_tokens,
            priority=priority,
            salt=prompt.salt,
            arrival_time=self._now(),
        )
        seeds = seeds_of(params, self.seed, self._requests_seen)
        self._requests_seen += params.n
        answer = first_answer(state, prompt.text, params, seeds, self.model.config, self.tokenizer)
        answer.prompt_logprobs = scores
        self._answers[request_id] = answer

    def _now(self) -> float:
        return time.perf_counter() - self._epoch

    def _advance(self) -> list[Answer]:
        """Launch until as many steps are in flight as may be, then report the oldest."""
        while self._may_launch():
            started = self._now()
            plan = self.scheduler.schedule()
            self._in_flight.append((plan, self.runner.launch(plan, self._sampling(plan)), started))
        return self._report(*self._in_flight.popleft())

    def _may_launch(self) -> bool:
        """Whether to plan a step now: not where it would hold nothing, since all that is left is in flight.

        Nor where the next token of a running request depends on all those before it, which must be known then.
        """
        if not self._in_flight:
            return self.scheduler.has_unfinished
        running = self.scheduler.running
        if len(self._in_flight) >= self.max_in_flight or any(
            self._answers[request.id].needs_history for request in running
        ):
            return False
        boarding = self.scheduler.waiting and len(running) < self.max_num_seqs
        return bool(boarding) or any(not request.is_exhausted for request in running)

    def _sampling(self, plan: StepPlan) -> Sampling:
        for state in plan.admitted:
            self._answers[state.id].num_cached_tokens = state.num_cached_tokens
        rows = plan.sampled_rows
        answers = [self._answers[row.id] for row in rows]
        # The token to be drawn is counted as pending already.
        given = [row.request.num_output_tokens + row.request.num_pending_tokens - 1 for row in rows]
        wanted = [each.params.logprobs for each in answers if each.params.logprobs is not None]
        draws = [answer.draw(count) for answer, count in zip(answers, given, strict=True)]
        return Sampling(draws, max(wanted, default=None))

    def _report(self, plan: StepPlan, step: PendingStep, launched: float) -> list[Answer]:
        """Wait for a step's tokens, add them to their answers, and tell the scheduler."""
        tokens = step.result()
        start, end = max(launched, self._last_end), self._now()
        self._last_end = end
        reported = []
        for index, row in enumerate(plan.sampled_rows):
            if not row.request.is_done:  # else it left while the step was in flight
                answer = self._answers[row.id]
                answer.add(tokens[row.id], step.logprobs, index)
                reported.append(answer)
                first = answer.samples[0]
                self._news[first.id] = first
                if len(first.samples) < first.params.n:
                    board_others(first, self.scheduler, self._answers, self._now())
        stopped = [answer.id for answer in reported if answer.finish_reason == "stop"]
        self.scheduler.update(plan, tokens, stopped, start=start, duration=end - start)
        return reported

    def _recover(self) -> None:
        """Where a call was cut short: after `generate` no request is left, else all go on from the last step.

        It may be cut short itself, and is done again by the next call.
        """
        if not self._under_way:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        if self._under_way == "generate":
            self._kv_cache = None
            self._begin_ride()
            return
        self._in_flight.clear()
        self._kv_cache = self._make_kv_cache()
        states = [answer.state for answer in self._answers.values()]
        for state in self.scheduler.roll_back(states, self._kv_cache):
            self._answers[state.id].roll_back(state.num_output_tokens)
        self._under_way = ""

    def close(self) -> None:
        """Let go of the model and the K/V memory; the Trace stays. Safe to call again."""
        with self.lock:
            self.is_closed = True
            for name in ("runner", "model"):
                self.__dict__.pop(name, None)
            release_memory()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
