"""The constructor's options: types, defaults by device, and what vLLM has and this engine leaves out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import torch
from pydantic import Field

from lessonlib.engine.frontend.checks import Number, Whole, is_one_of, show, unknown
from lessonlib.engine.frontend.params import MAX_LOGPROBS
from lessonlib.errors import CourseError

MOST_SLOTS = 65_536  # each holds rows of buffers
AtLeastOne = Annotated[Whole, Field(ge=1, lt=2**31), "give at least 1, and fewer than 2**31"]
Slots = Annotated[Whole, Field(ge=1, le=MOST_SLOTS), f"give at least 1, and at most {MOST_SLOTS:,}"]
Share = Annotated[Number, Field(gt=0, le=1), "give a share, above 0 and at most 1"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ALIASES = {"half": "float16", "float": "float32"}  # vLLM's


def _at(names: str, *values: Any) -> dict[str, tuple[Any, ...]]:
    """Options by name, each with the values at which it changes nothing here: none stands for any."""
    return dict.fromkeys(names.split(), values)


# Options of vLLM's that could only change speed, paths or reports of what this engine does not have.
NO_MATTER = _at(
    """aggregate_engine_logging disable_cascade_attn disable_custom_all_reduce disable_log_stats
    enable_shm_tensor_arena ignore_patterns max_parallel_loading_workers served_model_name
    swap_space trust_remote_code use_tqdm_on_load"""
)
LEFT_OUT = {
    **_at(
        """additional_config attention_config hf_overrides limit_mm_per_prompt mm_processor_kwargs
        override_generation_config profiler_config quantization_config structured_outputs_config""",
        None,
        {},
    ),
    **_at(
        """allowed_media_domains attention_backend chat_template code_revision compilation_config
        download_dir hf_config_path hf_token kv_cache_memory_bytes kv_transfer_config
        max_num_scheduled_tokens offload_params pooler_config quantization revision spec_method
        spec_model spec_tokens speculative_config tokenizer_revision""",
        None,
    ),
    **_at("cpu_offload_gb long_prefill_token_threshold offload_group_size", 0),
    **_at(
        """data_parallel_size offload_num_in_group offload_prefetch_step pipeline_parallel_size
        stream_interval tensor_parallel_size""",
        1,
    ),
    **_at(
        """disable_sliding_window enable_expert_parallel enable_lora enable_prompt_embeds
        enable_return_routed_experts enable_sleep_mode return_sampling_mask""",
        False,
    ),
    **_at("generation_config kv_cache_dtype model_impl", "auto"),
    "allowed_local_media_path": ("",),
    "config_format": ("auto", "hf"),
    "convert": ("auto", "none"),
    "distributed_executor_backend": (None, "uni", "mp"),
    "enable_chunked_prefill": (True, None),
    "logits_processors": (None, []),
    "logprobs_mode": ("raw_logprobs",),
    "max_logprobs": (MAX_LOGPROBS,),
    "optimization_level": (2,),
    "prefix_caching_hash_algo": ("sha256",),
    "runner": ("auto", "generate"),
    "scheduling_policy": ("fcfs",),
    "task": ("auto", "generate"),
    "tokenizer_mode": ("auto", "hf"),
}

BEYOND = "the end of notebook 06 says what it buys"
# Option -> where the course explains it, or what to use here.
WHERE = {
    "enable_chunked_prefill": "give policy='orca' for whole prompts (notebook 03)",
    "enable_lora": BEYOND,
    "pipeline_parallel_size": BEYOND,
    "quantization": BEYOND,
    "scheduling_policy": "give policy='sla' for priorities (notebook 03)",
    "speculative_config": BEYOND,
    "tensor_parallel_size": BEYOND,
}


def check_left_out(options: Mapping[str, Any], own: Iterable[str]) -> None:
    """Raise `CourseError` for an option that neither engine has, or one of vLLM's at a value that would matter.

    Args:
        own: the options that this engine has.
    """
    for name, value in options.items():
        if name in NO_MATTER:
            continue
        if name not in LEFT_OUT:
            raise unknown("LLM", name, {*own, *NO_MATTER, *LEFT_OUT})
        if not is_one_of(value, LEFT_OUT[name]):
            raise CourseError(
                f"{name} {show(value)}: leave it at {show(LEFT_OUT[name][0])}, this engine does nothing else; "
                + WHERE.get(name, "docs/vllm.md says what it takes")
            )


def check_length(max_model_len: int | None, max_positions: int) -> int:
    """The longest sequence. Raises `CourseError` beyond the positions that the model was made for."""
    if max_model_len is not None and max_model_len > max_positions:
        raise CourseError(
            f"max_model_len {max_model_len}: the model was made for {max_positions} positions, give at most that"
        )
    return max_model_len or max_positions


def choose_device(device: str) -> torch.device:
    """The device by name. Raises `CourseError` for another name, or CUDA where there is none."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda"):
        raise CourseError(f"device {device!r}: choose cpu, cuda or auto")
    if device == "cuda" and not torch.cuda.is_available():
        raise CourseError("device 'cuda', but PyTorch sees no NVIDIA GPU here: use device 'cpu'")
    return torch.device(device)


def choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The type by name. Raises `CourseError` for one that the engine does not run."""
    if dtype == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    found = DTYPES.get(ALIASES.get(dtype, dtype)) if isinstance(dtype, str) else dtype
    if found is None or found not in DTYPES.values():
        raise CourseError(f"dtype {dtype!r}: choose one of auto, {', '.join(DTYPES)}")
    return found
