"""A request as it comes: prompt, parameters and priority, checked whole before anything is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from lessonlib.engine.frontend.checks import Whole, is_one_of, listed, plain, show, unknown
from lessonlib.engine.frontend.params import SamplingParams
from lessonlib.engine.frontend.prompts import EncodedPrompt, as_prompts, check_ids, encode
from lessonlib.errors import CourseError
from lessonlib.scheduling import policies
from lessonlib.scheduling.policy import Policy

SAMPLE = "\0"
# Arguments of vLLM's generate and chat, at values that change nothing.
LEFT_OUT: dict[str, tuple[Any, ...]] = {
    "lora_request": (None,),
    "mm_processor_kwargs": (None, {}),
    "tokenization_kwargs": (None, {}),
}
_PRIORITIES: TypeAdapter[list[int]] = TypeAdapter(
    Annotated[list[Annotated[Whole, Field(gt=-(2**31), lt=2**31)]], BeforeValidator(listed)],
    config={"strict": True},
)
Request = tuple[EncodedPrompt, SamplingParams, int]
"""A prompt, its parameters, its priority."""


def requests(
    engine: Any, prompts: Any, params: Any, priority: Any, others: Mapping[str, Any]
) -> list[Request]:
    """What `generate` was asked for, checked: what is accepted here fails in no step.

    Args:
        engine: an `LLM`.
        others: its further arguments.
    """
    check_options("generate", others)
    asked = as_prompts(prompts)
    each = one_each(params, len(asked), engine.default_params)
    ranks = priorities(priority, len(asked), engine.scheduler.policy)
    return [
        _request(engine, prompt, each[index], ranks[index], f"prompt {index}")
        for index, prompt in enumerate(asked)
    ]


def request(engine: Any, prompt: Any, params: Any, priority: Any, name: str) -> Request:
    """What `add_request` was asked for, checked in the same way."""
    (params,) = one_each(params, 1, engine.default_params)
    (rank,) = priorities(priority, 1, engine.scheduler.policy)
    return _request(engine, prompt, params, rank, name)


def _request(engine: Any, prompt: Any, params: SamplingParams, priority: int, name: str) -> Request:
    encoded = encode(prompt, engine.tokenizer, engine.model.config.vocab_size, name)
    params = params.clone()
    check_params(params, engine, name)
    room = engine.max_model_len - len(encoded.token_ids)
    if room < 1:
        raise CourseError(
            f"{name} has {len(encoded.token_ids)} tokens; the model's context holds {engine.max_model_len}, "
            "at least one of them for the answer: shorten the prompt"
        )
    params.max_tokens = min(params.max_tokens or room, room)
    return encoded, params, priority


def check_params(params: SamplingParams, engine: Any, name: str) -> None:
    """Raise `CourseError` for parameters that the engine's model, tokenizer or scheduler cannot follow."""
    tokenizer, vocab_size = engine.tokenizer, engine.model.config.vocab_size
    if params.n > 1 and not hasattr(engine.scheduler, "fork"):
        raise CourseError(f"{name} has n {params.n}, and the scheduler has no fork: give n=1")
    ids = {
        "stop_token_ids": params.stop_token_ids,
        "allowed_token_ids": params.allowed_token_ids or [],
        "logit_bias": list(params.logit_bias or ()),
    }
    for part, found in ids.items():
        check_ids(found, vocab_size, f"{name}, {part},")
    if tokenizer is None and params.stop:
        raise CourseError(f"{name} has a stop string, which needs the tokenizer: use stop_token_ids")
    if tokenizer is None and params.bad_words:
        raise CourseError(f"{name} has bad words, which need the tokenizer: use logit_bias")
    for word in params.bad_words:
        if not tokenizer.encode(word.lstrip(), add_special_tokens=False):
            raise CourseError(f"{name} has the bad word {show(word)}: give one of at least one token")


def check_request_id(request_id: Any) -> None:
    """Raise `CourseError` unless it is a text, and none that `sample_name` could give."""
    if not isinstance(request_id, str) or SAMPLE in request_id:
        raise CourseError(f"request_id {show(request_id)}: give a text without {SAMPLE!r}")


def sample_name(request_id: str, index: int) -> str:
    """What the scheduler calls answer number `index` to a request that asks for several."""
    return f"{request_id}{SAMPLE}{index}"


def one_each(params: Any, count: int, default: SamplingParams) -> list[SamplingParams]:
    """Parameters for `count` prompts, from none, one or a list. Raises `CourseError` for anything else."""
    if params is None or isinstance(params, SamplingParams):
        return [params or default] * count
    given: list[SamplingParams] = list(params) if isinstance(params, Sequence) else [params]
    for each in given:
        if not isinstance(each, SamplingParams):
            raise CourseError(f"sampling_params {show(each)}: give a SamplingParams, or a list of them")
    if len(given) != count:
        raise CourseError(f"{len(given)} sampling params for {count} prompts: give one, or one each")
    return given


def check_options(call: str, options: Mapping[str, Any]) -> None:
    """Raise `CourseError` for an argument that neither engine has, or one of vLLM's at a value that would matter."""
    for name, value in options.items():
        if name not in LEFT_OUT:
            raise unknown(call, name, (*LEFT_OUT, "prompts", "sampling_params", "use_tqdm", "priority"))
        if not is_one_of(value, LEFT_OUT[name]):
            raise CourseError(f"{name} {show(value)}: leave it out, this engine has none (docs/vllm.md)")


def priorities(found: Any, count: int, policy: Policy) -> list[int]:
    """Each request's priority, from none, one or a list.

    Raises `CourseError` for anything else, and where a policy of the course's has no use for them.
    """
    if found is None or isinstance(plain(found), int):
        found = [plain(found) or 0] * count
    try:
        checked: list[int] = _PRIORITIES.validate_python(found)
    except ValidationError as error:
        odd = show(error.errors(include_url=False)[0]["input"])
        raise CourseError(
            f"priority {odd}: give a whole number between -2**31 and 2**31, or one for each prompt"
        ) from None
    if len(checked) != count:
        raise CourseError(f"{len(checked)} priorities for {count} prompts: give one, or one each")
    ignores = type(policy).__module__ == policies.__name__ and not isinstance(policy, policies.SLATiers)
    if any(checked) and ignores:
        raise CourseError(
            f"priority {max(checked, key=abs)}: policy {policy.name!r} has no tiers, use policy='sla' (notebook 03)"
        )
    return checked
