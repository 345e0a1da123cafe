"""What each part of the course is called in vLLM, and in which file.

vLLM renames its parts as it grows. `missing` compares this table with the installed vLLM, without starting it, and a
test requires that they agree.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lessonlib.contenders.process import vllm_python
from lessonlib.errors import CourseError


@dataclass(frozen=True)
class Counterpart:
    """A part of the course and its name in vLLM.

    Attributes:
        notebook: where the course builds it, e.g. "03".
        part: what it does, in a few words.
        module, here: in the course: a module, and a name in it, possibly dotted.
        file, there: in vLLM: a file below `vllm/`, and a name in it, possibly dotted.
    """

    notebook: str
    part: str
    module: str
    here: str
    file: str
    there: str


SCHEDULER = "v1/core/sched/scheduler.py"
QUEUE = "v1/core/sched/request_queue.py"
MEMORY = "v1/core/kv_cache_manager.py"
POOL = "v1/core/block_pool.py"
BLOCKS = "v1/core/kv_cache_utils.py"
# vLLM has two model runners. Which one it makes depends on version and device: on a CPU a child of the older one, on a
# card the newer one, from 0.25 on. `vllm_engine.runner` asks a running engine, and a record keeps the answer.
RUNNER = "v1/worker/gpu_model_runner.py"
CARDS_RUNNER = "v1/worker/gpu/model_runner.py"

COUNTERPARTS = tuple(
    Counterpart(*row)
    for row in (
        ("01", "how full it rides", "lessonlib.trace", "Trace", "v1/metrics/stats.py", "SchedulerStats"),
        (
            "02",
            "who waits",
            "lessonlib.simulation.slots",
            "SlotScheduler.waiting",
            SCHEDULER,
            "Scheduler.waiting",
        ),
        (
            "02",
            "who rides",
            "lessonlib.simulation.slots",
            "SlotScheduler.occupant",
            SCHEDULER,
            "Scheduler.running",
        ),
        (
            "02",
            "let them board",
            "lessonlib.simulation.slots",
            "SlotScheduler.admit",
            SCHEDULER,
            "Scheduler.schedule",
        ),
        (
            "02",
            "let them leave",
            "lessonlib.simulation.slots",
            "SlotScheduler.release",
            SCHEDULER,
            "Scheduler.update_from_output",
        ),
        (
            "02",
            "time to first token",
            "lessonlib.trace",
            "Trace.first_token_time",
            "v1/metrics/stats.py",
            "RequestStateStats",
        ),
        ("03", "a request", "lessonlib.scheduling.request", "RequestState", "v1/request.py", "Request"),
        (
            "03",
            "how far it has come",
            "lessonlib.scheduling.request",
            "RequestState.num_computed_tokens",
            "v1/request.py",
            "Request.num_computed_tokens",
        ),
        (
            "03",
            "its state",
            "lessonlib.scheduling.request",
            "RequestStatus",
            "v1/request.py",
            "RequestStatus",
        ),
        ("03", "the queue", "lessonlib.scheduling.request", "RequestQueue", QUEUE, "RequestQueue"),
        (
            "03",
            "first come, first served",
            "lessonlib.scheduling.policy",
            "Policy",
            QUEUE,
            "FCFSRequestQueue",
        ),
        (
            "03",
            "by rank",
            "lessonlib.scheduling.policy",
            "Policy.rank",
            QUEUE,
            "PriorityRequestQueue",
        ),
        (
            "03",
            "one step's plan",
            "lessonlib.scheduling.plan",
            "StepPlan",
            "v1/core/sched/output.py",
            "SchedulerOutput",
        ),
        (
            "03",
            "throw out, recompute",
            "lessonlib.scheduling.scheduler",
            "Scheduler._preempt",
            SCHEDULER,
            "Scheduler._preempt_request",
        ),
        ("03", "memory of requests", "lessonlib.scheduling.kv_cache", "KVCache", MEMORY, "KVCacheManager"),
        (
            "03",
            "blocks for more tokens",
            "lessonlib.scheduling.kv_cache",
            "KVCache.append",
            MEMORY,
            "KVCacheManager.allocate_slots",
        ),
        (
            "03",
            "a shared prefix",
            "lessonlib.scheduling.kv_cache",
            "KVCache.cached_prefix",
            MEMORY,
            "KVCacheManager.get_computed_blocks",
        ),
        ("03", "all blocks", "lessonlib.scheduling.block_pool", "BlockPool", POOL, "BlockPool"),
        (
            "03",
            "give blocks back",
            "lessonlib.scheduling.block_pool",
            "BlockPool.free",
            POOL,
            "BlockPool.free_blocks",
        ),
        (
            "03",
            "the free list",
            "lessonlib.scheduling.block_pool",
            "BlockPool.free_blocks",
            BLOCKS,
            "FreeKVCacheBlockQueue",
        ),
        (
            "03",
            "a block's hash",
            "lessonlib.scheduling.block_pool",
            "block_hash",
            BLOCKS,
            "hash_block_tokens",
        ),
        (
            "04",
            "paged attention",
            "kernels.attention",
            "paged_attention",
            "v1/attention/backends/flash_attn.py",
            "FlashAttentionImpl",
        ),
        (
            "04",
            "the same in Triton",
            "kernels.attention",
            "_decode_kernel",
            "v1/attention/ops/triton_unified_attention.py",
            "kernel_unified_attention",
        ),
        (
            "04",
            "combine the splits",
            "kernels.attention",
            "_combine_kernel",
            "v1/attention/ops/triton_unified_attention.py",
            "reduce_segments",
        ),
        (
            "04",
            "write keys and values",
            "kernels.pointwise",
            "rotary_write_kv",
            "_custom_ops.py",
            "reshape_and_cache_flash",
        ),
        ("05", "the front door", "lessonlib.engine.llm", "LLM", "entrypoints/llm.py", "LLM"),
        (
            "05",
            "one turn of the loop",
            "lessonlib.engine.llm",
            "LLM._advance",
            "v1/engine/core.py",
            "EngineCore.step_with_batch_queue",
        ),
        (
            "05",
            "plan ahead of results",
            "lessonlib.scheduling.scheduler",
            "Scheduler",
            "v1/core/sched/async_scheduler.py",
            "AsyncScheduler",
        ),
        (
            "05",
            "run the model, on a CPU",
            "lessonlib.engine.runner",
            "ModelRunner.launch",
            RUNNER,
            "GPUModelRunner.execute_model",
        ),
        (
            "05",
            "run the model, on a card",
            "lessonlib.engine.runner",
            "ModelRunner.launch",
            CARDS_RUNNER,
            "GPUModelRunner.execute_model",
        ),
        (
            "05",
            "lay the batch out, on a CPU",
            "lessonlib.engine.inputs",
            "StepInputs.of",
            RUNNER,
            "GPUModelRunner._prepare_inputs",
        ),
        (
            "05",
            "lay the batch out, on a card",
            "lessonlib.engine.inputs",
            "StepInputs.of",
            CARDS_RUNNER,
            "GPUModelRunner.prepare_inputs",
        ),
        (
            "05",
            "the index tensors",
            "lessonlib.engine.inputs",
            "StepInputs",
            "v1/attention/backend.py",
            "CommonAttentionMetadata",
        ),
        (
            "05",
            "the same addresses",
            "lessonlib.engine.inputs",
            "InputBuffers",
            "v1/worker/gpu/input_batch.py",
            "InputBuffers",
        ),
        (
            "05",
            "the model",
            "lessonlib.engine.model",
            "Llama",
            "model_executor/models/llama.py",
            "LlamaForCausalLM",
        ),
        (
            "05",
            "graphs",
            "lessonlib.engine.runner",
            "StepGraph",
            "compilation/cuda_graph.py",
            "CUDAGraphWrapper",
        ),
        (
            "05",
            "which graph",
            "lessonlib.engine.runner",
            "graph_shapes",
            "v1/cudagraph_dispatcher.py",
            "CudagraphDispatcher",
        ),
        ("05", "choose a word", "lessonlib.engine.sampler", "sample", "v1/sample/sampler.py", "Sampler"),
    )
)

# Classes that older texts name and vLLM no longer has.
GONE = ("WaitingQueue", "RunningQueue", "SequenceGroup")


def table(notebooks: Iterable[str]) -> str:
    """The counterparts of these notebooks, as a table in Markdown."""
    lines = ["| nb | what it does | here | in vLLM | in its file |", "|---|---|---|---|---|"]
    lines += [
        f"| {each.notebook} | {each.part} | `{each.here}` | `{each.there}` | `{each.file}` |"
        for each in COUNTERPARTS
        if each.notebook in notebooks
    ]
    return "\n".join(lines)


def missing(counterparts: Iterable[Counterpart] = COUNTERPARTS) -> list[str]:
    """The counterparts that the installed vLLM does not have, as "file: name".

    Raises `CourseError` if vLLM is not installed.
    """
    folder = _folder()
    return [
        f"{each.file}: {each.there}"
        for each in counterparts
        if each.there not in names_in(folder / each.file)
    ]


def back_again(names: Iterable[str] = GONE) -> list[str]:
    """Which of these classes the installed vLLM has, anywhere."""
    pattern = re.compile(rf"^class ({'|'.join(names)})\b", re.MULTILINE)
    found = {
        name
        for path in _folder().rglob("*.py")
        for name in pattern.findall(path.read_text(encoding="utf-8", errors="replace"))
    }
    return sorted(found)


def check_here() -> str:
    """A text: how many of the names the installed vLLM has, and which of the classes in `GONE`."""
    try:
        lost, back = missing(), back_again()
    except CourseError as error:
        return f"not checked here: {error}"
    found = f"{len(COUNTERPARTS) - len(lost)} of {len(COUNTERPARTS)} names are where the tables say"
    not_found = f"; not there: {', '.join(lost)}" if lost else ""
    return f"{found}{not_found}\nof {', '.join(GONE)}: {', '.join(back) or 'none'}"


@cache
def _folder() -> Path:
    """The folder of the installed vLLM, found without importing it, which takes many seconds."""
    find = "import importlib.util; print(importlib.util.find_spec('vllm').origin)"
    done = subprocess.run([vllm_python(), "-c", find], capture_output=True, text=True)
    if done.returncode:
        raise CourseError(f"{vllm_python()} has no vLLM: run `make vllm`")
    return Path(done.stdout.strip()).parent


@cache
def names_in(path: Path) -> frozenset[str]:
    """Functions and classes of a file, and each class's methods, fields and `self.…` with the class before them."""
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(_names(tree.body))


def _names(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield node.name
            yield from (f"{node.name}.{name}" for name in _members(node))
        elif isinstance(node, ast.If | ast.Try):  # a definition for one platform
            yield from _names(node.body)
            yield from _names(node.orelse)


def _members(node: ast.ClassDef) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
            yield each.name
        elif isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            yield each.target.id
        elif isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store) and _is_self(each.value):
            yield each.attr


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"
