"""`lesson generate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from lessonlib.cli.command import DONE, Command, seed_from_zero
from lessonlib.errors import CourseError
from lessonlib.files import check_place

SHOWN = ("token_ids", "text", "finish_reason")
OF_THE_ENGINE = (
    *("policy", "device", "dtype", "attention"),
    *("max_num_seqs", "max_num_batched_tokens", "num_blocks"),
)


@click.command(
    cls=Command,
    short_help="answer prompts with a real model",
    example="lesson generate --prompts prompts.txt --max-tokens 64",
)
@click.option("--prompts", required=True, metavar="FILE", help="A text file, one prompt a line.")
@click.option("--model", default="smollm2", help="A folder, a hub name, or smollm2.")
@click.option("--policy", default="continuous", help="continuous, static, vllm, …")
@click.option("--device", default="auto", help="cpu, cuda or auto.")
@click.option("--dtype", default="auto", help="float32, bfloat16, float16 or auto.")
@click.option(
    "--attention", default="auto", help="triton, native, reference or auto, which is triton on a GPU."
)
@click.option(
    "--slots", "--max-num-seqs", "max_num_seqs", type=int, default=8, help="Requests on board at once."
)
@click.option("--max-num-batched-tokens", type=int, help="Tokens a step computes at most.")
@click.option("--num-blocks", type=int, help="K/V blocks.", show_default="as memory holds")
@click.option("--max-tokens", type=int, default=128, help="Longest answer.")
@click.option("--temperature", type=float, default=0.0, help="0: the likeliest token.")
@click.option("--top-p", type=float, default=1.0, help="Share of probability to draw from.")
@click.option(
    "--seed", type=int, callback=seed_from_zero, help="Of the draws, where the temperature is above 0."
)
@click.option("--save", metavar="FILE", help="Write the Trace as JSON (.gz: compressed).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def generate(**given: Any) -> int:
    """Answer prompts with a real model, on the course's engine."""
    options = SimpleNamespace(**given)
    prompts = _read_prompts(options.prompts)
    if options.save:
        check_place(options.save)  # better known before than after
    if sys.stderr.isatty():
        print(f"loading {options.model}", file=sys.stderr, flush=True)
    from lessonlib.engine import LLM, SamplingParams

    params = SamplingParams(
        max_tokens=options.max_tokens, temperature=options.temperature, top_p=options.top_p, seed=options.seed
    )
    llm = LLM(options.model, **{name: getattr(options, name) for name in OF_THE_ENGINE})
    chats = [llm.chat_prompt([{"role": "user", "content": prompt}]) for prompt in prompts]
    answers = llm.generate(chats, params) if options.as_json else _stream(llm, prompts, chats, params)
    if options.save:
        llm.trace.save(options.save)
    result = {**llm.trace.summary(), "seconds": llm.trace.span}
    outputs = [
        {"prompt": prompt, **{name: getattr(answer.outputs[0], name) for name in SHOWN}}
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    print(json.dumps({**result, "outputs": outputs}, indent=1) if options.as_json else _rates(result))
    return DONE


def _stream(llm: Any, prompts: list[str], chats: list[Any], params: Any) -> list[Any]:
    """Print the answers in order, each as its words come; those after it are computed beside it unseen."""
    for index, chat in enumerate(chats):
        llm.add_request(str(index), chat, params)
    latest: dict[str, Any] = {}
    for index, prompt in enumerate(prompts):
        print(f"> {prompt}")
        shown = 0
        while True:
            answer = latest.get(str(index))
            if answer is not None:
                print(answer.outputs[0].text[shown:], end="", flush=True)
                shown = len(answer.outputs[0].text)
                if answer.finished:
                    break
            latest |= {output.request_id: output for output in llm.step()}
        print("\n")
    return [latest[str(index)] for index in range(len(prompts))]


def _read_prompts(path: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise CourseError(
            f"cannot read prompts from {path}: {reason}; give a text file, one prompt a line"
        ) from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise CourseError(f"{path} holds no prompts: write one a line")
    return prompts


def _rates(result: dict[str, Any]) -> str:
    rate = result["tokens"] / result["seconds"]
    return (
        f"{result['tokens']:,} tokens in {result['steps']:,} steps, {result['seconds']:.1f} s "
        f"({rate:.0f} tok/s), utilization {result['utilization']:.1%}"
    )
