"""vLLM's own schedulers, unchanged but for a `TraceRecorder` that records what they plan.

vLLM takes such a class by name: ``LLM(..., scheduler_cls="lessonlib.contenders.vllm_scheduler.TracedScheduler")``.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from lessonlib.contenders.vllm_trace import QueueState, Scheduled, TraceRecorder
from lessonlib.trace import Header


class _Traced:
    """A mixin that comes before vLLM's scheduler in the order of inheritance."""

    current: ClassVar[Any] = None  # the instance: vLLM makes it, and `Vllm` finds it here

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.recorder: TraceRecorder | None = None
        self.blocks_short = 0  # at the last call that asked for K/V memory; 0 if it was given
        self._watch_memory(self.kv_cache_manager)  # type: ignore[attr-defined]
        _Traced.current = self

    def _watch_memory(self, manager: Any) -> None:
        """Note what vLLM's own checks of memory find, whenever it asks for some."""
        allocate, count = manager.allocate_slots, manager.coordinator.get_num_blocks_to_allocate
        needed = 0

        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal needed
            needed = count(*args, **kwargs)
            return needed

        def allocated(*args: Any, **kwargs: Any) -> Any:
            blocks = allocate(*args, **kwargs)
            free = manager.block_pool.get_num_free_blocks()
            # A request may be refused for a watermark or a reserve too: then one block is missing at least.
            self.blocks_short = max(1, needed - free) if blocks is None else 0
            return blocks

        manager.coordinator.get_num_blocks_to_allocate, manager.allocate_slots = counted, allocated

    def start_trace(self, versions: dict[str, str]) -> None:
        """Begin a Trace."""
        pool = self.kv_cache_manager.block_pool  # type: ignore[attr-defined]
        header = Header(
            slots=self.max_num_running_reqs,  # type: ignore[attr-defined]
            clock="seconds",
            maker="vllm",
            policy="vllm",
            block_size=self.block_size,  # type: ignore[attr-defined]
            num_blocks=pool.num_gpu_blocks,
            versions=versions,
        )
        self.recorder = TraceRecorder(header)

    def add_request(self, request: Any) -> None:
        super().add_request(request)  # type: ignore[misc]
        if self.recorder:
            self.recorder.arrive(request.request_id, request.num_prompt_tokens)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        self.blocks_short = 0
        output = super().schedule(*args, **kwargs)  # type: ignore[misc]
        if self.recorder:
            self.recorder.plan(
                {name: self._part(name, count) for name, count in output.num_scheduled_tokens.items()},
                output.preempted_req_ids or (),
                self._queue_state(output),
                self.kv_cache_manager.block_pool.get_num_free_blocks(),  # type: ignore[attr-defined]
                started,
            )
        return output

    def _queue_state(self, output: Any) -> QueueState:
        return QueueState(
            len(self.waiting),  # type: ignore[attr-defined]
            len(self.running),  # type: ignore[attr-defined]
            self.max_num_running_reqs,  # type: ignore[attr-defined]
            output.total_num_scheduled_tokens,
            self.max_num_scheduled_tokens,  # type: ignore[attr-defined]
            len(output.preempted_req_ids or ()),
            self.blocks_short,
        )

    def _part(self, name: str, tokens: int) -> Scheduled:
        request = self.requests[name]  # type: ignore[attr-defined]
        blocks = self.kv_cache_manager.get_block_ids(name)  # type: ignore[attr-defined]
        computed = request.num_computed_tokens - tokens  # `schedule` has added those of this step already
        return Scheduled(tokens, computed, request.num_tokens, sum(map(len, blocks)))

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        outputs = super().update_from_output(scheduler_output, model_runner_output)  # type: ignore[misc]
        if self.recorder and scheduler_output.num_scheduled_tokens:
            requests = [each for client in outputs.values() for each in client.outputs]
            tokens = {each.request_id: len(each.new_token_ids) for each in requests}
            self.recorder.report(
                tokens, [each.request_id for each in requests if each.finish_reason is not None]
            )
        return outputs


class TracedScheduler(_Traced, Scheduler):
    """The scheduler that plans a step when the results of the one before are there (CPU)."""


class TracedAsyncScheduler(_Traced, AsyncScheduler):
    """The scheduler that plans a step while the one before is computed (GPU).

    With a subclass of the plain scheduler, vLLM would not plan ahead.
    """
