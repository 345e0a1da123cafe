"""The rows of work that `lesson compare` runs, sized for a laptop's processor or for a GPU."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lessonlib.contenders.job import BLOCK_SIZE, Job, Row
from lessonlib.errors import CourseError
from lessonlib.result import RowFacts
from lessonlib.workload import poisson_arrivals, questions, read_trace

WORKLOADS = ("mixed", "fixed", "sweep", "split", "sampled", "online", "conversations", "trace:FILE")
PROMPT_TOKENS = (16, 48)  # of a random prompt, shortest and longest
SAMPLED = {
    "top-p 0.95": {"temperature": 0.8, "top_p": 0.95},
    "top-k 50": {"temperature": 0.8, "top_k": 50},
    "5 logprobs": {"temperature": 0.0, "logprobs": 5},
}


@dataclass(frozen=True)
class Preset:
    """The sizes of all rows.

    Attributes:
        device, dtype, slots, max_model_len: see `job.Job`.
        choices: `max_tokens` of the mixed rows, each equally likely.
        fixed: `max_tokens` of the fixed rows and the sweep.
        mixed_requests, fixed_requests, sweep: requests of each row.
        split_requests, split_slots, split_paged_slots, split_choices: of the row whose gain is taken apart: many more
            requests than slots, memory for the longest sequence in each slot, and the requests that may share the same
            memory block by block.
        split_chain: its contenders, each one change away from the one before.
        rates: arrivals a second of the online rows, `online_requests` requests each.
        trace_requests, longest_prompt: requests taken from a trace file, and tokens that longer prompts are cut to.
        conversations: requests, turns, tokens that all begin with, tokens asked in each turn, and tokens of an answer.
        takes_turns: whether all processes live at once and take turns, row by row; otherwise one after the other has
            the machine for all rows.
        repeat, runs: rounds, and timed runs of a row in each turn.
        identity: requests, and tokens of each, of the check in float32; (0, 0): no check.
        shapes: of the model, a name of `SHAPES`; empty: the largest that fit on the card.
    """

    name: str
    device: str
    dtype: str
    slots: int
    choices: tuple[int, ...]
    fixed: int
    mixed_requests: tuple[int, ...]
    fixed_requests: tuple[int, ...]
    sweep: tuple[int, ...]
    split_requests: int
    split_slots: int
    split_paged_slots: int
    split_choices: tuple[int, ...]
    split_chain: tuple[str, ...]
    rates: tuple[float, ...]
    online_requests: int
    trace_requests: int
    longest_prompt: int
    conversations: tuple[int, int, int, int, int]
    takes_turns: bool
    repeat: int
    runs: int
    identity: tuple[int, int] = (0, 0)
    max_model_len: int = 2048
    shapes: str = ""

    def job_for(self, row: Row, job: Job) -> Job:
        """The job with the slots and the memory for this kind of row. A sweep has slots for its largest batch."""
        if row.kind == "sweep":
            return replace(job, slots=max(job.slots, *self.sweep))
        if row.kind == "split":
            return replace(
                job,
                slots=self.split_slots,
                paged_slots=self.split_paged_slots,
                num_blocks=self.split_slots * -(-row.longest // BLOCK_SIZE) + 1,
                max_model_len=row.longest,
            )
        return replace(job, prefix_caching=True) if row.kind == "conversations" else job


CPU = Preset(
    name="cpu",
    device="cpu",
    dtype="bfloat16",
    slots=16,
    choices=(4, 16, 64),
    fixed=32,
    mixed_requests=(64,),
    fixed_requests=(64,),
    sweep=(4, 8, 16, 32, 64, 128),
    split_requests=32,
    split_slots=4,
    split_paged_slots=12,
    split_choices=(4, 16, 64),
    split_chain=("hf", "course-static", "course-continuous", "course-paged", "course", "vllm"),
    rates=(2.0, 4.0, 8.0, 16.0, 32.0),
    online_requests=48,
    trace_requests=32,
    longest_prompt=512,
    conversations=(8, 3, 96, 32, 16),
    takes_turns=True,
    repeat=2,
    runs=1,
    identity=(16, 24),
)
GPU = Preset(
    name="gpu",
    device="cuda",
    dtype="bfloat16",
    slots=256,
    choices=(64, 256, 1024),
    fixed=256,
    mixed_requests=(64, 256),
    fixed_requests=(64, 128),
    sweep=(1, 4, 8, 16, 32, 64, 128),
    split_requests=128,
    split_slots=32,
    split_paged_slots=64,
    split_choices=(8, 32, 128),
    split_chain=(
        "hf-dynamic",  # plain `generate` without compiling, as the engine's first forms
        "course-static",
        "course-continuous",
        "course-paged",
        "course-mixed",
        "course-graphs",
        "course",
        "vllm",
    ),
    rates=(2.0, 4.0, 8.0, 12.0, 16.0, 24.0),
    online_requests=256,
    trace_requests=256,
    longest_prompt=1024,
    conversations=(64, 6, 600, 120, 96),
    takes_turns=False,
    repeat=1,
    runs=2,
    identity=(8, 16),
)
PRESETS = {"cpu": CPU, "gpu": GPU}

SMALLEST_CARD = 15 * 2**30  # what a card of 16 GB has


def here() -> Preset:
    """The preset for this machine: the GPU's if there is an NVIDIA card of 16 GB or more, else the CPU's."""
    import torch

    if torch.cuda.is_available() and torch.cuda.get_device_properties(0).total_memory >= SMALLEST_CARD:
        return GPU
    return CPU


LLAMA_2_7B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA_1B = {
    **LLAMA_2_7B,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
LLAMA_3_8B = {
    **LLAMA_2_7B,
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-2-7b": ("Llama-2-7B shapes, random weights", LLAMA_2_7B),
    "llama-3-8b": ("Llama-3-8B shapes, random weights", LLAMA_3_8B),
    "llama-1b": ("1B Llama shapes, random weights", LLAMA_1B),
}
"""By name: a label, and config.json."""
ROOM_FOR_7B = 60 * 2**30  # weights, and a static cache of 64 requests of 1,072 tokens


def shapes_for(gpu_bytes: int, name: str = "") -> tuple[str, dict[str, Any]]:
    """A label and config.json of the named shapes; without a name, of the largest that every contender can run on
    this card."""
    return SHAPES[name or ("llama-2-7b" if gpu_bytes >= ROOM_FOR_7B else "llama-1b")]


def with_shapes(preset: Preset, name: str) -> Preset:
    """The preset with these shapes, and with requests as long as they have positions for.

    Raises `CourseError` for an unknown name, or a preset that has a real model.
    """
    if name not in SHAPES:
        raise CourseError(f"unknown shapes {name!r}: use one of {', '.join(SHAPES)}")
    if preset.device != "cuda":
        raise CourseError(f"shapes {name} are for --preset gpu; the {preset.name} preset has a real model")
    longest = SHAPES[name][1]["max_position_embeddings"]
    return replace(preset, shapes=name, max_model_len=longest, longest_prompt=longest - max(preset.choices))


def write_config(folder: Path, config: dict[str, Any], dtype: str) -> Path:
    """Make a model folder that has a config. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**config, "torch_dtype": dtype}))
    return folder


# ----- prompts -----

Prompts = Callable[[random.Random, int], list[list[int]]]
"""(random generator, count) -> token ids of that many prompts."""


def random_prompts(vocab_size: int) -> Prompts:
    """Draws prompts of 16 to 48 random ids. For a vocabulary of 32,000 they are those of the recorded baseline."""

    def draw(rng: random.Random, count: int) -> list[list[int]]:
        return [
            [rng.randrange(3, vocab_size - 1) for _ in range(rng.randint(*PROMPT_TOKENS))]
            for _ in range(count)
        ]

    return draw


def question_prompts(tokenizer: Any) -> Prompts:
    """Draws the course's 64 questions in the model's chat template; after the last comes the first again."""

    def draw(rng: random.Random, count: int) -> list[list[int]]:
        asked = questions(64)
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": asked[index % len(asked)]}],
                tokenize=False,
                add_generation_prompt=True,
            )
            for index in range(count)
        ]
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]

    return draw


# ----- rates of arrival -----


def arrival_rate(text: str, peak: float) -> float:
    """Requests a second, from "8", or "70%" of `peak`. Rounded to the three digits that a row's name shows.

    Raises `CourseError` for any other text.
    """
    try:
        value = float(text.removesuffix("%")) * (peak / 100 if is_share(text) else 1.0)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise CourseError(
            f"rate {text!r}: give requests a second, as in 8, or a share of vLLM's peak, as in 70%"
        )
    return float(f"{value:.3g}")


def is_share(rate: str) -> bool:
    """Whether a rate is given as a share of the peak."""
    return rate.endswith("%")


# ----- rows -----


def rows_for(
    names: Sequence[str], preset: Preset, prompts: Prompts, vocab_size: int, seed: int = 0
) -> list[Row]:
    """The rows of the named workloads, each once. Raises `CourseError` for an unknown name."""
    rows: dict[str, Row] = {}
    for name in names:
        for row in _workload(name, preset, prompts, vocab_size, seed):
            rows.setdefault(row.name, row)
    return list(rows.values())


def _workload(name: str, preset: Preset, prompts: Prompts, vocab_size: int, seed: int) -> list[Row]:
    kind, _, path = name.partition(":")
    if kind == "mixed" and not path:
        return [mixed(count, preset, prompts, seed) for count in preset.mixed_requests]
    if kind == "fixed" and not path:
        return [fixed(count, preset, prompts, "fixed", seed) for count in preset.fixed_requests]
    if kind == "sweep" and not path:
        return [fixed(count, preset, prompts, "sweep", seed) for count in preset.sweep]
    if kind == "split" and not path:
        return [split(preset, prompts, seed)]
    if kind == "sampled" and not path:
        return sampled(preset, prompts, seed)
    if kind == "conversations" and not path:
        return [conversations(preset, vocab_size, seed)]
    if kind == "online" and not path:
        return [online(rate, preset, prompts, seed) for rate in preset.rates]
    if kind == "trace" and path:
        return [from_file(path, preset, vocab_size, seed)]
    raise CourseError(f"unknown workload {name!r}: use one or more of {', '.join(WORKLOADS)}")


def mixed(count: int, preset: Preset, prompts: Prompts, seed: int = 0) -> Row:
    """The homework: the `max_tokens` of each request are drawn at random."""
    ids, max_tokens = _drawn(count, preset.choices, prompts, seed)
    return Row(f"{count} mixed", ids, max_tokens, kind="mixed")


def split(preset: Preset, prompts: Prompts, seed: int = 0) -> Row:
    """Mixed work with more requests than slots, so that a freed slot can be refilled."""
    ids, max_tokens = _drawn(preset.split_requests, preset.split_choices, prompts, seed)
    return Row(f"{len(ids)} in {preset.split_slots} slots", ids, max_tokens, kind="split")


def _drawn(
    count: int, choices: Sequence[int], prompts: Prompts, seed: int
) -> tuple[list[list[int]], list[int]]:
    rng = random.Random(seed)
    ids = prompts(rng, count)
    return ids, [rng.choice(choices) for _ in ids]


def fixed(count: int, preset: Preset, prompts: Prompts, kind: str, seed: int = 0) -> Row:
    """All requests have the same `max_tokens`, so a static batch wastes nothing. In a sweep they are one batch."""
    ids = prompts(random.Random(seed), count)
    batch = count if kind == "sweep" else 0
    return Row(f"{count} x {preset.fixed}", ids, [preset.fixed] * count, kind=kind, batch=batch)


def sampled(preset: Preset, prompts: Prompts, seed: int = 0) -> list[Row]:
    """Mixed work at temperature 0.7, and work of one length sampled in the ways of `SAMPLED`."""
    row = mixed(preset.mixed_requests[0], preset, prompts, seed)
    rows = [replace(row, name=f"{row.name} (temperature 0.7)", kind="sampled", sampling={"temperature": 0.7})]
    row = fixed(preset.fixed_requests[-1], preset, prompts, "sampled", seed)
    return rows + [
        replace(row, name=f"{row.name} ({name})", sampling=sampling) for name, sampling in SAMPLED.items()
    ]


def online(rate: float, preset: Preset, prompts: Prompts, seed: int = 0) -> Row:
    """The mixed work, arriving as a Poisson stream of exactly `rate` requests a second.

    The mean of a few dozen drawn gaps is off by 10 or 30%. So all gaps are scaled by one factor, such that n requests
    come in (n - 1) / rate seconds. The bursts and pauses that make a Poisson stream hard stay as they were drawn.
    """
    row = mixed(preset.online_requests, preset, prompts, seed)
    drawn = poisson_arrivals(len(row), rate, seed)
    stretch = (len(row) - 1) / rate / drawn[-1] if drawn[-1] else 1.0
    return Row(f"online {rate:g}/s", row.prompts, row.max_tokens, (stretch * drawn).tolist(), "online")


def from_file(path: str, preset: Preset, vocab_size: int, seed: int = 0) -> Row:
    """The lengths of the first requests of a trace file, all waiting at the start, with random ids as prompts.

    Prompts are cut to `longest_prompt` tokens, and answers to the longest of `choices`.
    """
    workload = read_trace(path).head(preset.trace_requests)
    rng = random.Random(seed)
    lengths = [max(1, min(int(count), preset.longest_prompt)) for count in workload.prompt_tokens]
    ids = [[rng.randrange(3, vocab_size - 1) for _ in range(count)] for count in lengths]
    max_tokens = [min(int(count), max(preset.choices)) for count in workload.output_tokens]
    return Row(f"first {len(ids)} of {Path(path).stem}", ids, max_tokens, kind="trace")


def conversations(preset: Preset, vocab_size: int, seed: int = 0) -> Row:
    """Several turns, with random ids: all begin with the same text, and each asks something of its own in each turn."""
    count, turns, common, asked, answer = preset.conversations
    rng = random.Random(seed)

    def drawn(tokens: int) -> list[int]:
        return [rng.randrange(3, vocab_size - 1) for _ in range(tokens)]

    begin = drawn(common)
    prompts = [begin + drawn(asked) for _ in range(count)]
    follow_ups = [[drawn(asked) for _ in range(count)] for _ in range(1, turns)]
    name = f"{count} conversations of {turns} turns"
    return Row(name, prompts, [answer] * count, kind="conversations", follow_ups=follow_ups)


def identity_row(preset: Preset, prompts: Prompts, seed: int = 0) -> Row:
    """A small part of the mixed work, for the check that all contenders give the same tokens."""
    count, longest = preset.identity
    row = mixed(count, preset, prompts, seed)
    return Row("identity", row.prompts, [min(longest, each) for each in row.max_tokens])


# ----- the memory roofline -----


def facts(row: Row, job: Job, weight_bytes: int, kv_bytes_per_token: int, bandwidth: float) -> RowFacts:
    """The facts about a row, among them the least time in which its bytes can be read from memory.

    Every step reads all weights once, and every output token reads the K/V of those before it. There are at least as
    many steps as the longest answer has tokens, and as the output tokens need with all slots taken. Prompts are left
    out: they are bound by compute, and short here.

    Args:
        job: the one that the row is run with.
        weight_bytes, kv_bytes_per_token: see `sizes.bytes_read`.
        bandwidth: bytes a second.
    """
    slots = max(job.slots, job.paged_slots)
    steps = max(max(row.max_tokens) * row.turns, -(-row.useful_tokens // slots))
    context = sum(count * prompt + count * (count - 1) // 2 for prompt, count in row.lengths())
    least_seconds = (steps * weight_bytes + context * kv_bytes_per_token) / bandwidth if bandwidth else 0.0
    prompt_tokens = sum(prompt for prompt, _ in row.lengths())
    rate = (len(row) - 1) / row.arrivals[-1] if row.arrivals and row.arrivals[-1] else 0.0
    choices = sorted(set(row.max_tokens))
    lengths = f"{choices[0]:,}" if len(choices) == 1 else f"{choices[0]:,} to {choices[-1]:,}"
    description = (
        f"{len(row) * row.turns:,} prompts of {prompt_tokens / len(row) / row.turns:.0f} tokens on average, "
        f"{lengths} tokens each"
    )
    return RowFacts(
        row.name, row.kind, len(row), prompt_tokens, row.useful_tokens, description, rate, least_seconds
    )
