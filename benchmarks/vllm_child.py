"""One engine's side of a comparison of calls: vLLM's documented examples, or random settings. Prints JSON.

    python benchmarks/vllm_child.py ENGINE WHAT --model FOLDER        ENGINE: course or vllm; WHAT: calls or parity

Run it with the Python that has the engine; for vLLM it needs nothing of the course. Each example is an expression in
which `llm` is the engine, made with the words of `MADE_WITH`, and what it gives is written down by `plain`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import sys
from dataclasses import dataclass
from typing import Any

MADE_WITH = {
    "dtype": "float32",
    "max_num_seqs": 4,
    "max_model_len": 256,
    "block_size": 32,
    "enforce_eager": True,
    "enable_prefix_caching": True,
    # At their defaults: they mean nothing here.
    "disable_log_stats": True,
    "enable_chunked_prefill": True,
    "kv_cache_dtype": "auto",
    "max_logprobs": 20,
    "num_gpu_blocks_override": None,
    "quantization": None,
    "revision": None,
    "seed": 0,
    "tensor_parallel_size": 1,
    "tokenizer": None,
    "trust_remote_code": False,
}
QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True)
class Example:
    """A call to try.

    Attributes:
        group: the kind of example.
        code: an expression.
        why: what makes the two engines differ, where they do.
        ours_alone: vLLM is not asked (another engine would have to be made, or more cards).
    """

    group: str
    code: str
    why: str = ""
    ours_alone: bool = False


DRAWS = "each engine has random numbers of its own, from the same distribution"


CALLS = {
    "basic": [
        "llm.generate(PROMPTS, GREEDY)",
        "llm.generate(PROMPTS, GREEDY, use_tqdm=False)",
        "llm.generate(PROMPTS[0], GREEDY)",
        "llm.generate(PROMPTS[:1], sampling_params=GREEDY)",
        "llm.generate(prompts=PROMPTS, sampling_params=[GREEDY] * len(PROMPTS))",
        "llm.generate(PROMPTS[0], params(temperature=0.0, max_tokens=None, stop='.'))",
        "llm.generate(PROMPTS[0], params(temperature=0, top_p=0.95, top_k=5, min_p=0.1))",
        "llm.generate(PROMPTS[0], params(temperature=0, ignore_eos=True))",
        "llm.generate(PROMPTS[0], params(temperature=0, top_k=-1, seed=-1))",
        "llm.generate(PROMPTS[0], GREEDY, lora_request=None)",
        "llm.get_tokenizer().decode([28, 314, 1343])",
        "llm.get_default_sampling_params().temperature",
        "len(llm.generate(PROMPTS[0])[0].outputs[0].token_ids)",
    ],
    "forms of prompts": [
        "llm.generate([1, 2683, 314, 260], GREEDY)",
        "llm.generate([[1, 2683], [314, 260, 3575]], GREEDY)",
        "llm.generate({'prompt': PROMPTS[0]}, GREEDY)",
        "llm.generate(TextPrompt(prompt=PROMPTS[0]), GREEDY)",
        "llm.generate([TextPrompt(prompt=each) for each in PROMPTS], GREEDY)",
        "llm.generate(TokensPrompt(prompt_token_ids=[1, 2683, 314]), GREEDY)",
        "llm.generate([{'prompt_token_ids': [1, 2683, 314]}, PROMPTS[0]], GREEDY)",
        "llm.generate({'prompt': PROMPTS[0], 'cache_salt': 'tenant'}, GREEDY)",
        "llm.generate(['a', {'prompt_token_ids': [5]}], [GREEDY, params(temperature=0, max_tokens=2)])",
    ],
    "chat": [
        "llm.chat(TALK, GREEDY)",
        "llm.chat([TALK, TALK[:1]], GREEDY)",
        "llm.chat(TALK, GREEDY, use_tqdm=False)",
        "llm.chat(TALK[:2], GREEDY, add_generation_prompt=False)",
        "llm.chat(TALK[:2], GREEDY, add_generation_prompt=False, continue_final_message=True)",
        "llm.chat([{'role': 'user', 'content': [{'type': 'text', 'text': 'Hello'}]}], GREEDY)",
        "llm.chat(TALK, GREEDY, chat_template='{{ messages[0].content }} Answer:')",
        "llm.chat(TALK, GREEDY, chat_template_content_format='string')",
        "llm.chat(TALK, GREEDY, lora_request=None, tools=None)",
    ],
    "prefix caching": [
        "bool(llm.reset_prefix_cache() or True)",
        "[each.num_cached_tokens for each in llm.generate([LONG + 'a'], GREEDY)]",
        "[each.num_cached_tokens for each in llm.generate([LONG + 'b', LONG + 'c'], GREEDY)]",
        "llm.generate([LONG + 'b', LONG + 'c'], GREEDY)",
    ],
    "log probabilities": [
        "llm.generate(PROMPTS, params(temperature=0, logprobs=0))",
        "llm.generate(PROMPTS, params(temperature=0, logprobs=3))",
        "llm.generate(PROMPTS[0], params(temperature=0, logprobs=20))",
        "llm.generate(PROMPTS[0], params(temperature=0, prompt_logprobs=0))",
        "llm.generate(PROMPTS[0], params(temperature=0, prompt_logprobs=2, logprobs=1))",
        "llm.generate(LONG, params(temperature=0, prompt_logprobs=1))",
        "llm.generate(PROMPTS[0], params(temperature=0, logprobs=2, repetition_penalty=1.5))",
    ],
    "stop": [
        "llm.generate(PROMPTS[0], params(temperature=0, stop='Paris'))",
        "llm.generate(PROMPTS[0], params(temperature=0, stop=['is', ' Pa']))",
        "llm.generate(PROMPTS[0], params(temperature=0, stop=['aris', 'is', 'Paris']))",
        "llm.generate(PROMPTS[0], params(temperature=0, stop=['.', 'is.'], include_stop_str_in_output=True))",
        "llm.generate(PROMPTS[0], params(temperature=0, stop_token_ids=[30]))",
        "llm.generate(PROMPTS[0], params(temperature=0, stop_token_ids=[30], include_stop_str_in_output=True))",
        "llm.chat(TALK, params(temperature=0, max_tokens=24))",
        "llm.chat(TALK, params(temperature=0, max_tokens=24, skip_special_tokens=False))",
        "llm.chat(TALK, params(temperature=0, max_tokens=24, include_stop_str_in_output=True))",
        "llm.chat(TALK, params(temperature=0, max_tokens=24, min_tokens=20))",
        "llm.chat(TALK, params(temperature=0, max_tokens=24, min_tokens=20, ignore_eos=True))",
        "llm.generate(PROMPTS[0], params(temperature=0, stop='Paris', min_tokens=3))",
        "llm.generate(PROMPTS[0], params(temperature=0, detokenize=False))",
    ],
    "penalties and rules": [
        "llm.generate(PROMPTS, params(temperature=0, repetition_penalty=1.3, max_tokens=12))",
        "llm.generate(PROMPTS, params(temperature=0, presence_penalty=1.5, max_tokens=12))",
        "llm.generate(PROMPTS, params(temperature=0, frequency_penalty=1.5, max_tokens=12))",
        "llm.generate(PROMPTS, params(temperature=0, frequency_penalty=-1.0, max_tokens=12))",
        "llm.generate(PROMPTS[0], params(temperature=0, logit_bias={2: 50.0}))",
        "llm.generate(PROMPTS[0], params(temperature=0, logit_bias={7042: -100, 30: 5}))",
        "llm.generate(PROMPTS[0], params(temperature=0, allowed_token_ids=[30, 198, 7042]))",
        "llm.generate(PROMPTS[0], params(temperature=0, bad_words=['Paris']))",
        "llm.generate(PROMPTS[0], params(temperature=0, bad_words=['the capital', ' French']))",
    ],
    "seeds and several samples": [
        "[len(each.outputs) for each in llm.generate(PROMPTS, params(n=3, temperature=0.8))]",
        "[each.index for each in llm.generate(PROMPTS[0], params(n=3, seed=5))[0].outputs]",
        "twice(lambda: llm.generate(PROMPTS, params(temperature=0.8, top_p=0.95, seed=42)))",
        "twice(lambda: llm.generate(PROMPTS[0], params(n=2, temperature=0.8, seed=42)))",
        "samples_are_seeds(llm, params)",
        "llm.generate(PROMPTS[0], params(temperature=1.0, seed=3))",
        "llm.generate(PROMPTS[0], params(temperature=3.0, top_k=1))",
        "llm.generate(PROMPTS[0], params(n=4, temperature=1.0, top_k=1))",
        "llm.generate(PROMPTS[0], params(temperature=0.7, min_p=1.0))",
    ],
    "priorities": [
        "llm.generate(PROMPTS, GREEDY, priority=[0, 0, 0])",
        "llm.generate(PROMPTS, GREEDY, priority=0)",
        "llm.generate(PROMPTS, GREEDY, priority=[0, 1, 2])",
    ],
    "parameters": [
        "params(2, 0.5).presence_penalty",
        "assigned(SamplingParams())",
        "SamplingParams(stop='a').stop",
        "SamplingParams(seed=-1).seed",
        "SamplingParams(top_k=-1).max_tokens",
        "SamplingParams(logprobs=True).logprobs",
        "SamplingParams().clone() == SamplingParams()",
        "SamplingParams(0.7)",
        "SamplingParams(n=0)",
        "SamplingParams(n=2, temperature=0)",
        "SamplingParams(temperature=-1)",
        "SamplingParams(top_p=0)",
        "SamplingParams(top_k=-2)",
        "SamplingParams(min_p=2)",
        "SamplingParams(max_tokens=0)",
        "SamplingParams(min_tokens=20)",
        "SamplingParams(stop=[''])",
        "SamplingParams(presence_penalty=3)",
        "SamplingParams(repetition_penalty=0)",
        "SamplingParams(stop='a', detokenize=False)",
        "llm.generate(PROMPTS[0], params(logprobs=21))",
        "llm.generate(PROMPTS[0], params(logprobs=-1))",
        "llm.generate(PROMPTS[0], params(allowed_token_ids=[]))",
        "llm.generate(PROMPTS[0], params(logit_bias={99999: 1.0}))",
        "llm.generate('', GREEDY)",
        "llm.generate([], GREEDY)",
        "llm.generate(PROMPTS, [GREEDY])",
        "llm.generate([99999], GREEDY)",
        "llm.generate([5] * 300, GREEDY)",
        "len(llm.generate([5] * 250, params(temperature=0, max_tokens=99))[0].outputs[0].token_ids)",
    ],
}
LEFT_OUT = [
    "llm.beam_search(PROMPTS, None)",
    "llm.embed(PROMPTS)",
    "llm.encode(PROMPTS)",
    "llm.score(PROMPTS[0], PROMPTS[1])",
    "llm.sleep()",
    "llm.collective_rpc('x')",
    "llm.generate(PROMPTS, GREEDY, lora_request=object())",
    "llm.generate({'prompt': 'a', 'multi_modal_data': {}}, GREEDY)",
    "SamplingParams(structured_outputs={'choice': ['yes', 'no']})",
    "SamplingParams(logprob_token_ids=[5])",
    "SamplingParams(flat_logprobs=True)",
    "LLM(MODEL, tensor_parallel_size=2)",
    "LLM(MODEL, pipeline_parallel_size=2)",
    "LLM(MODEL, quantization='fp8')",
    "LLM(MODEL, kv_cache_dtype='fp8')",
    "LLM(MODEL, enable_lora=True)",
    "LLM(MODEL, speculative_config={'method': 'ngram'})",
    "LLM(MODEL, enable_chunked_prefill=False)",
    "LLM(MODEL, scheduling_policy='priority')",
    "LLM(MODEL, max_logprobs=50)",
    "LLM(MODEL, no_such_option=1)",
]

# What makes the engines differ, where they do.
WHY = {
    "llm.generate(PROMPTS[0], params(temperature=1.0, seed=3))": DRAWS,
    "llm.generate(PROMPTS[0], params(temperature=3.0, top_k=1))": "vLLM refuses temperatures above 2",
}


def examples() -> list[Example]:
    """All calls, in the order they are made."""
    found = [Example(group, code) for group, codes in CALLS.items() for code in codes]
    found += [Example("what is left out", code, ours_alone=True) for code in LEFT_OUT]
    return [dataclasses.replace(each, why=WHY.get(each.code, "")) for each in found]


# ----- what the examples use -----


def twice(call: Any) -> bool:
    """Whether the second call gives the same tokens as the first."""
    first, second = (
        [[list(each.token_ids) for each in output.outputs] for output in call()] for _ in range(2)
    )
    return first == second


def samples_are_seeds(llm: Any, params: Any) -> bool:
    """Whether answer number i to a seeded request is that of seed + i."""
    several = llm.generate("Once upon a time", params(n=3, temperature=0.9, seed=7))[0].outputs
    alone = [
        llm.generate("Once upon a time", params(temperature=0.9, seed=seed))[0].outputs[0]
        for seed in (7, 8, 9)
    ]
    return [list(each.token_ids) for each in several] == [list(each.token_ids) for each in alone]


def assigned(params: Any) -> list[Any]:
    """What some fields are after they were assigned."""
    params.temperature, params.max_tokens, params.stop = 0.5, 7, ["a"]
    return [params.temperature, params.max_tokens, params.stop]


def names(llm: Any, engine: Any, model: str) -> dict[str, Any]:
    """What an example may name."""

    def params(*args: Any, **options: Any) -> Any:
        return engine["SamplingParams"](*args, **{"max_tokens": 6, **options})

    return {
        **engine,
        "llm": llm,
        "params": params,
        "twice": twice,
        "samples_are_seeds": samples_are_seeds,
        "assigned": assigned,
        "MODEL": model,
        "GREEDY": params(temperature=0),
        "PROMPTS": ["The capital of France is", "Once upon a time", "Hello, my name is"],
        "LONG": "You are a helpful assistant who answers in one short sentence. " * 6,
        "TALK": [
            {"role": "user", "content": "What is the capital of France?"},
            {"role": "assistant", "content": "It is Paris, on the"},
            {"role": "user", "content": "And of Italy?"},
        ],
    }


def load(engine: str) -> dict[str, Any]:
    if engine == "vllm":
        from vllm import LLM, SamplingParams
        from vllm.inputs import TextPrompt, TokensPrompt
    else:
        from lessonlib.engine import LLM, SamplingParams, TextPrompt, TokensPrompt
    return {
        "LLM": LLM,
        "SamplingParams": SamplingParams,
        "TextPrompt": TextPrompt,
        "TokensPrompt": TokensPrompt,
    }


# ----- what comes out, as JSON -----


def plain(value: Any) -> Any:
    """A result as JSON has it; outputs without what names the engine (ids of requests, times)."""
    if hasattr(value, "prompt_token_ids") and hasattr(value, "outputs"):
        return {
            "prompt_token_ids": list(value.prompt_token_ids),
            "prompt_logprobs": value.prompt_logprobs and [scores(each) for each in value.prompt_logprobs],
            "outputs": [plain(each) for each in value.outputs],
            "finished": value.finished,
        }
    if hasattr(value, "token_ids"):
        return {
            "index": value.index,
            "text": value.text,
            "token_ids": list(value.token_ids),
            "finish_reason": value.finish_reason,
            "stop_reason": value.stop_reason,
            "logprobs": value.logprobs and [scores(each) for each in value.logprobs],
        }
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else type(value).__name__


def scores(found: Any) -> dict[str, list[float]] | None:
    """Log probability and rank by token id."""
    return found and {str(token): [round(each.logprob, 5), each.rank] for token, each in found.items()}


def outcome(code: str, space: dict[str, Any]) -> dict[str, Any]:
    """{"value": …} of an expression, or {"error": its type, "line": its first line}."""
    try:
        return {"value": plain(eval(code, space))}  # the examples are of this file
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return {"error": type(error).__name__, "line": lines[0], "lines": len(lines)}


def calls(engine: str, model: str) -> list[dict[str, Any] | None]:
    """The outcome of each example; None where the engine is not asked."""
    made = load(engine)
    llm = made["LLM"](model, **MADE_WITH)
    space = names(llm, made, model)
    return [
        None if each.ours_alone and engine == "vllm" else outcome(each.code, space) for each in examples()
    ]


# ----- random settings -----

TEXT = """the a elevator waits for riders on every floor while rain falls over Paris and seven old clocks tell
one two three stories of kings who count blocks of memory in a quiet town by the sea"""
WORDS = TEXT.split()
STOPS = [".", "\n", " the", "and", "is", "e", ", ", "ing"]
ENGINES = [
    {"max_num_seqs": 4},
    {"max_num_seqs": 2, "max_num_batched_tokens": 16},
    {"max_num_seqs": 4, "num_gpu_blocks_override": 11},
    {"max_num_seqs": 4, "enable_prefix_caching": True},
    {"max_num_seqs": 3, "enable_prefix_caching": True, "num_gpu_blocks_override": 10},
    {"max_num_seqs": 8, "max_num_batched_tokens": 24, "enable_prefix_caching": True},
]
SETTINGS = 60


def setting(number: int) -> tuple[dict[str, Any], list[list[int]], list[dict[str, Any]]]:
    """Options of the engine, prompts as words' numbers, and parameters: the setting of that number."""
    dice = random.Random(number)
    options = {
        "dtype": "float32",
        "max_model_len": 256,
        "block_size": 32,
        "enforce_eager": True,
        "enable_prefix_caching": False,
        **ENGINES[number % len(ENGINES)],
    }
    start = [dice.randrange(len(WORDS)) for _ in range(dice.choice([0, 40]))]
    prompts, params = [], []
    for _ in range(dice.randint(2, 5)):
        prompts.append(start + [dice.randrange(len(WORDS)) for _ in range(dice.randint(1, 30))])
        each = {
            "temperature": 0,
            "max_tokens": dice.choice([1, 3, 8, 24, 40]),
            "logprobs": dice.choice([None, 0, 1, 4]),
            "stop": dice.sample(STOPS, dice.choice([0, 0, 1, 2])),
            "stop_token_ids": dice.choice([[], [], [28, 30, 198], [260, 282, 284]]),
            "ignore_eos": dice.random() < 0.5,
            "include_stop_str_in_output": dice.random() < 0.3,
            "prompt_logprobs": dice.choice([None, None, None, 1]),
        }
        each["min_tokens"] = dice.choice([0, 0, 2, 5]) if each["max_tokens"] >= 8 else 0
        if dice.random() < 0.25:
            each["repetition_penalty"] = dice.choice([0.9, 1.2, 1.5])
        params.append(each)
    return options, prompts, params


def parity(engine: str, model: str, numbers: list[int]) -> dict[str, Any]:
    """What each setting's prompts are answered, by its number. One engine for those with the same options."""
    made = load(engine)
    found: dict[str, Any] = {}
    for kind in range(len(ENGINES)):
        alike = [number for number in numbers if number % len(ENGINES) == kind]
        llm = made["LLM"](model, **setting(alike[0])[0]) if alike else None
        for number in alike:
            _, prompts, params = setting(number)
            texts = [" ".join(WORDS[word] for word in words) for words in prompts]
            asked = [made["SamplingParams"](**each) for each in params]
            found[str(number)] = plain(llm.generate(texts, asked, use_tqdm=False))
        del llm
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=["course", "vllm"])
    parser.add_argument("what", choices=["calls", "parity"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--settings", type=int, nargs="*", default=list(range(SETTINGS)))
    options = parser.parse_args()
    os.environ.update(QUIET)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an engine prints goes elsewhere
    sys.stdout = sys.stderr
    if options.what == "calls":
        found: Any = calls(options.engine, options.model)
    else:
        found = parity(options.engine, options.model, options.settings)
    json.dump(found, answers)
    answers.flush()


if __name__ == "__main__":
    main()
