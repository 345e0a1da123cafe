"""A prompt, as text, as token ids or as a conversation, brought to token ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from pydantic import TypeAdapter, ValidationError

from lessonlib.engine.frontend.checks import Text, listed, plain, show, unknown
from lessonlib.errors import CourseError


class TextPrompt(TypedDict):
    """A text; `cache_salt` names who may share its cached prefix."""

    prompt: str
    cache_salt: NotRequired[str]


class TokensPrompt(TypedDict):
    """Token ids, and the text they stand for where it is known."""

    prompt_token_ids: list[int]
    prompt: NotRequired[str]
    cache_salt: NotRequired[str]


Prompt = str | Sequence[int] | TextPrompt | TokensPrompt | Mapping[str, Any]
Conversation = Sequence[Mapping[str, Any]]
PARTS = ("prompt", "prompt_token_ids", "cache_salt")
_IDS: TypeAdapter[list[int]] = TypeAdapter(list[int], config={"strict": True})
_TEXT: TypeAdapter[str] = TypeAdapter(Text, config={"strict": True})


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the engine reads it. `text` is None where only ids were given."""

    text: str | None
    token_ids: list[int]
    salt: str


def as_prompts(prompts: Any) -> list[Prompt]:
    """One prompt, or several, as a list. Raises `CourseError` for none, and for what is no list of prompts."""
    prompts = prompts.tolist() if hasattr(prompts, "tolist") else prompts
    if isinstance(prompts, str | Mapping):
        return [prompts]
    if not isinstance(prompts, Sequence) or isinstance(prompts, bytes):
        raise CourseError(f"prompts {show(prompts)}: give a text, a list of token ids, or a list of these")
    if not prompts:
        raise CourseError("no prompts: give at least one")
    if isinstance(plain(prompts[0]), int | float):
        return [prompts]
    return list(prompts)


def as_conversations(messages: Any) -> list[Conversation]:
    """One conversation, or several, as a list. Raises `CourseError` for none, and for what is no list of them."""
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise CourseError(f"messages {show(messages)}: give a conversation, or a list of conversations")
    if not messages:
        raise CourseError("no conversations: give at least one")
    return [messages] if isinstance(messages[0], Mapping) else list(messages)


def encode(prompt: Any, tokenizer: Any, vocab_size: int, name: str) -> EncodedPrompt:
    """A prompt's token ids.

    Args:
        prompt: see `Prompt`.
        tokenizer: None where only ids are taken.
        name: what an error calls it.

    Raises `CourseError` for an empty prompt, one of another form, or an id beyond the vocabulary.
    """
    parts = _parts(prompt, name)
    text, ids, salt = (parts.get(part) for part in PARTS)
    text, salt = (
        _text(each, f"{name} has a {part}") for part, each in (("text", text), ("cache_salt", salt))
    )
    if ids is not None:
        ids = _token_ids(ids, name)
    elif text is None:
        raise CourseError(f"{name} has neither 'prompt' nor 'prompt_token_ids': give a text or token ids")
    elif tokenizer is None:
        raise CourseError(f"{name} is a text, which needs the tokenizer: give prompt_token_ids")
    else:
        ids = list(tokenizer(text)["input_ids"])
    if not ids:
        raise CourseError(f"{name} is empty: give it at least one token")
    check_ids(ids, vocab_size, name)
    return EncodedPrompt(text, ids, salt or "")


def check_ids(ids: Sequence[int], vocab_size: int, name: str) -> None:
    """Raise `CourseError` for a token id that the model does not have."""
    if ids and not 0 <= min(ids) <= max(ids) < vocab_size:
        found = next(token for token in ids if not 0 <= token < vocab_size)
        raise CourseError(
            f"{name} has token id {show(found)}: the model's vocabulary is 0 to {vocab_size - 1}"
        )


def _parts(prompt: Any, name: str) -> Mapping[str, Any]:
    if isinstance(prompt, str):
        return {"prompt": prompt}
    if isinstance(prompt, Mapping):
        for part, value in prompt.items():
            if part not in PARTS and value is not None:
                raise unknown(name, part, PARTS)
        return prompt
    return {"prompt_token_ids": prompt}


def _text(value: Any, name: str) -> str | None:
    try:
        return None if value is None else _TEXT.validate_python(value)
    except ValidationError:
        raise CourseError(f"{name} {show(value)}: give a text that UTF-8 can hold") from None


def _token_ids(ids: Any, name: str) -> list[int]:
    try:
        return _IDS.validate_python(ids)
    except ValidationError:  # NumPy's or torch's numbers, or no numbers
        is_several = isinstance(ids, Iterable) and not isinstance(ids, str) and getattr(ids, "ndim", 1) != 0
        ids = listed(ids) if is_several else ids
    try:
        return _IDS.validate_python(ids)
    except ValidationError as error:
        found = error.errors()[0]
        inside = "".join(f"[{part}]" for part in found["loc"])
        raise CourseError(
            f"{name} has prompt_token_ids{inside} {show(found['input'])}: give a text or a list of whole numbers"
        ) from None


def render(conversation: Any, tokenizer: Any, name: str, **options: Any) -> TokensPrompt:
    """A conversation as a prompt, put into the chat template.

    Args:
        conversation: messages, each {"role", "content"}; a content is a text, or a list of {"type": "text", "text"}.
        options: as `apply_chat_template` of Hugging Face takes them.

    Raises `CourseError` for an empty or ill-formed conversation, and where there is no template or it refuses.
    """
    if tokenizer is None:
        raise CourseError("chat needs the tokenizer: make the LLM without skip_tokenizer_init")
    if options.get("continue_final_message") and options.get("add_generation_prompt"):
        raise CourseError("continue_final_message True: give add_generation_prompt=False beside it")
    messages = [
        _message(each, f"{name}, message {index}") for index, each in enumerate(_messages(conversation, name))
    ]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    except Exception as error:  # whatever a template raises
        raise CourseError(f"{name} does not fit the chat template: {show(str(error))[1:-1]}") from error
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]  # the template has them
    return {"prompt": text, "prompt_token_ids": ids}


def _messages(conversation: Any, name: str) -> Sequence[Any]:
    if not isinstance(conversation, Sequence) or isinstance(conversation, str | bytes):
        raise CourseError(f"{name} is {show(conversation)}: give a list of messages")
    if not conversation:
        raise CourseError(f"{name} is empty: give at least one message")
    return conversation


def _message(message: Any, name: str) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise CourseError(f"{name} is {show(message)}: give a dictionary with 'role' and 'content'")
    content = message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        if not all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
            raise CourseError(f"{name} has content {show(content)}: this engine reads text alone")
        content = "\n".join(str(part.get("text")) for part in content)
    if content is None and "content" not in message:
        raise CourseError(f"{name} has no 'content': give it a text")
    return {**message, "content": _text(content, f"{name} has content") or ""}


def load_tokenizer(source: str | Path) -> Any:
    """The tokenizer of a folder or hub name. Raises `CourseError` where there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source)
    except Exception as error:  # of many kinds, with many lines
        raise CourseError(
            f"no tokenizer in {source} ({show(str(error))[1:-1]}): add its files, or use skip_tokenizer_init"
        ) from error
