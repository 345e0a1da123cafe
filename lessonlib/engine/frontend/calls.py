"""vLLM's calls beside `generate`, and what of them this engine leaves out, said in one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lessonlib.engine.frontend import prompts as reading
from lessonlib.engine.frontend.checks import show
from lessonlib.engine.frontend.params import SamplingParams
from lessonlib.engine.frontend.prompts import Conversation, TokensPrompt
from lessonlib.engine.outputs import RequestOutput
from lessonlib.errors import CourseError

CHAT_FORMATS = ("auto", "string", "openai")
# Defaults of a checkpoint that vLLM takes over, by their names there.
DEFAULTS = {name: name for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")}
DEFAULTS["max_new_tokens"] = "max_tokens"
METHODS_LEFT_OUT = {
    "apply_model": "let other processes work on a model",
    "beam_search": "search with beams",
    "classify": "classify",
    "collective_rpc": "let other processes work on a model",
    "embed": "embed",
    "encode": "pool hidden states",
    "enqueue": "queue requests for a later generate (add_request does, and step computes)",
    "enqueue_chat": "queue requests for a later chat (add_request does, and step computes)",
    "get_metrics": "count metrics (its trace does)",
    "score": "score pairs",
    "sleep": "put its weights aside",
    "start_profile": "profile itself (PyTorch's profiler does)",
    "stop_profile": "profile itself (PyTorch's profiler does)",
    "wait_for_completion": "queue requests for a later generate (add_request does, and step computes)",
    "wake_up": "put its weights aside",
}


class Calls:
    """What vLLM's `LLM` offers beside `generate`; `lessonlib.engine.LLM` is one."""

    tokenizer: Any
    model: Any
    generate: Any

    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        *,
        chat_template: str | None = None,
        chat_template_content_format: str = "auto",
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: list[dict[str, Any]] | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> list[RequestOutput]:
        """Answer conversations, one or several, each a list of {"role", "content"}.

        Args:
            chat_template: in place of the model's own, as are `tools` and `chat_template_kwargs` handed to it.
            add_generation_prompt: end the prompt with the beginning of an answer.
            continue_final_message: go on with the last message; give add_generation_prompt=False beside it.
            options: as `generate` takes them.
        """
        if chat_template_content_format not in CHAT_FORMATS:
            raise CourseError(
                f"chat_template_content_format {show(chat_template_content_format)}: choose one of "
                + ", ".join(CHAT_FORMATS)
            )
        how = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
            "chat_template": chat_template,
            "tools": tools,
            **(chat_template_kwargs or {}),
        }
        prompts = [
            reading.render(each, self.tokenizer, f"conversation {index}", **how)
            for index, each in enumerate(reading.as_conversations(messages))
        ]
        answers: list[RequestOutput] = self.generate(prompts, sampling_params, use_tqdm, **options)
        return answers

    def chat_prompt(self, conversation: Conversation) -> TokensPrompt:
        """A conversation as a prompt that the model continues with its answer."""
        return reading.render(conversation, self.tokenizer, "the conversation", add_generation_prompt=True)

    def get_tokenizer(self) -> Any:
        """The tokenizer. Raises `CourseError` where there is none."""
        if self.tokenizer is None:
            raise CourseError("this LLM has no tokenizer: make it without skip_tokenizer_init")
        return self.tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """What holds where a request brings no parameters: the checkpoint's own, from its generation_config.json.

        Raises `CourseError` for a value there that is out of range.
        """
        file = self.model.folder / "generation_config.json"
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        chosen = {ours: found[name] for name, ours in DEFAULTS.items() if found.get(name) is not None}
        try:
            return SamplingParams(**chosen)
        except CourseError as error:
            raise CourseError(f"{file}: {error}") from None

    def __getattr__(self, name: str) -> Any:
        if name in METHODS_LEFT_OUT:
            raise MissingCallError(
                f"{name}: this engine does not {METHODS_LEFT_OUT[name]}; docs/vllm.md says what it takes"
            )
        raise AttributeError(f"{type(self).__name__} has no {name!r}")


class MissingCallError(CourseError, AttributeError):
    """A call of vLLM's that is not here."""
