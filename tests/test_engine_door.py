"""What is accepted at the door never fails later, and what is not gets one line that names it; nobody is stopped."""

import json
import math
from collections import Counter
from typing import get_type_hints

import numpy as np
import pytest
import torch
from engine_models import write_config, write_tokenizer
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from lessonlib.engine import LLM, SamplingParams, TextPrompt, TokensPrompt
from lessonlib.engine.frontend.checks import STRICT, plain, show
from lessonlib.engine.frontend.options import LEFT_OUT, NO_MATTER
from lessonlib.errors import CourseError

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {"max_num_seqs": 4, "max_num_batched_tokens": 32, "num_blocks": 40, "load_format": "dummy"}
NEIGHBOR = (
    "neighbor",
    "Hello",
    SamplingParams(max_tokens=12, temperature=0.9, seed=3, ignore_eos=True, logprobs=1),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tokenizer(write_config(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def make(folder):
    """LLM(**options); the weights are drawn once."""
    model = LLM(folder, device="cpu", **SIZES).model
    return lambda **options: LLM(model, **{**SIZES, **options})


@pytest.fixture(scope="module")
def llm(make):
    return make(enable_prefix_caching=True)


def told(llm):
    """Ride everyone to the end: the last output of each."""
    last = {}
    for _ in range(200):
        last |= {output.request_id: output for output in llm.step()}
        if not llm.has_unfinished_requests():
            return last
    raise AssertionError("somebody rides for ever")


@pytest.fixture(scope="module")
def alone(make):
    llm = make()
    llm.add_request(*NEIGHBOR)
    return told(llm)["neighbor"]


def ride_beside(llm, alone, prompt, params):
    """The request is refused in one line or answered, and its neighbor's answer is the one alone; the error or None."""
    for name in list(llm.scheduler.requests):  # of a test that failed
        llm.abort(name)
    llm.start_trace()
    llm.add_request(*NEIGHBOR)
    llm.step()
    refusal = None
    try:
        llm.add_request("it", prompt, params() if callable(params) else params)
    except CourseError as error:
        refusal = str(error)
        assert "\n" not in refusal
        assert ": " in refusal
        assert len(refusal.encode()) < 400
    outputs = told(llm)
    for answer in outputs["it"].outputs if "it" in outputs else ():
        assert all(0 <= token < llm.model.config.vocab_size for token in answer.token_ids)
        assert answer.finish_reason in ("stop", "length")
    found, expected = outputs["neighbor"].outputs[0], alone.outputs[0]
    assert (found.token_ids, found.text) == (expected.token_ids, expected.text)
    assert found.cumulative_logprob == pytest.approx(expected.cumulative_logprob, abs=1e-3)
    assert ("it" in outputs) == (refusal is None)
    assert llm.scheduler.kv_cache.num_free == llm.num_blocks - 1
    return refusal


REFUSED = [
    ({"seed": 2**64}, "seed 18446744073709551616"),
    ({"seed": -(2**63) - 1}, "seed -9223372036854775809"),
    ({"seed": 1.5}, "seed 1.5"),
    ({"seed": "7"}, "seed '7'"),
    ({"seed": math.nan}, "seed nan"),
    ({"stop": ["a", 5]}, "stop[1] 5"),
    ({"stop": 5}, "stop[0] 5"),
    ({"stop": ""}, "stop[0] '': give one text or several; an empty stop string"),
    ({"stop": "\ud800"}, "stop[0] '\\ud800'"),
    ({"stop": b"a"}, "stop b'a'"),
    ({"logprobs": 2.5}, "logprobs 2.5"),
    ({"logprobs": True}, "logprobs True"),
    ({"logprobs": -2}, "logprobs -2"),
    ({"temperature": "0.5"}, "temperature '0.5'"),
    ({"temperature": -0.1}, "temperature -0.1"),
    ({"temperature": math.inf}, "temperature inf"),
    ({"temperature": 10**400}, "temperature 1000"),
    ({"temperature": None}, "temperature None"),
    ({"top_k": None}, "top_k None"),
    ({"top_k": 2.5}, "top_k 2.5"),
    ({"top_k": -2}, "top_k -2"),
    ({"top_p": 0}, "top_p 0"),
    ({"top_p": 1.1}, "top_p 1.1"),
    ({"max_tokens": 0}, "max_tokens 0"),
    ({"max_tokens": 10**5000}, "max_tokens of type int"),
    ({"max_tokens": torch.tensor([1, 2])}, "max_tokens tensor([1, 2])"),
    ({"stop_token_ids": ["a"]}, "stop_token_ids[0] 'a'"),
    ({"stop_token_ids": [1.0]}, "stop_token_ids[0] 1.0"),
    ({"ignore_eos": 1}, "ignore_eos 1"),
    ({"repetition_penalty": 1e-320}, "repetition_penalty 1e-320: give 1e-10 to 1e10"),
    ({"repetition_penalty": 0}, "repetition_penalty 0"),
    (
        {"logit_bias": {5: 1e308}},
        "logit_bias[5] 1e+308: give a dictionary by token id, of numbers from -1e20",
    ),
    ({"temprature": 1}, "SamplingParams has no 'temprature': did you mean 'temperature'?"),
]


@pytest.mark.parametrize(("params", "words"), REFUSED)
def test_parameters_out_of_range_are_named(params, words):
    with pytest.raises(CourseError) as refused:
        SamplingParams(**params)
    assert str(refused.value).startswith(words)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("params", "words"), [each for each in REFUSED if "temprature" not in each[0]])
def test_and_where_they_are_assigned(params, words):
    mine, ((name, value),) = SamplingParams(), params.items()
    with pytest.raises(CourseError) as refused:
        setattr(mine, name, value)
    assert str(refused.value).startswith(words)
    assert mine == SamplingParams()


ODD_BUT_RIGHT = [
    {"seed": 2**64 - 1},
    {"seed": -(2**63)},
    {"seed": 2**63},
    {"seed": -1},
    {"seed": np.uint64(2**64 - 1)},
    {"temperature": 10**11},
    {"temperature": 1e-38},
    {"temperature": 1e308},
    {"temperature": np.float16(0.5)},
    {"temperature": torch.tensor(0.5)},
    {"top_p": 1e-46},
    {"top_p": 5e-324},
    {"top_k": np.int8(3)},
    {"top_k": torch.tensor(2)},
    {"top_k": 2**63 - 1},
    {"max_tokens": None},
    {"max_tokens": 2**63 - 1},
    {"max_tokens": np.array(3)},
    {"stop": ("a", "b")},
    {"stop": None},
    {"stop": "\U0001f6d7"},
    {"stop_token_ids": None},
    {"stop_token_ids": np.arange(3)},
    {"stop_token_ids": torch.arange(3)},
    {"stop_token_ids": {4, 5}},
    {"logprobs": np.int64(2)},
    {"ignore_eos": np.True_},
]


@pytest.mark.parametrize("params", ODD_BUT_RIGHT, ids=str)
def test_what_is_odd_and_right_rides(llm, alone, params):
    assert ride_beside(llm, alone, "Hi", SamplingParams(**{"max_tokens": 4, **params})) is None


def test_a_cut_of_next_to_nothing_leaves_the_most_probable_token(llm):
    greedy = llm.generate("Hi", SamplingParams(temperature=0, ignore_eos=True), use_tqdm=False)[0].outputs[0]
    cuts = ({"top_p": 1e-46}, {"temperature": 1e-38}, {"top_k": 1}, {"min_p": 1.0, "temperature": 1e308})
    for params in cuts:
        cut = llm.generate("Hi", SamplingParams(ignore_eos=True, **params), use_tqdm=False)[0].outputs[0]
        assert cut.token_ids == greedy.token_ids


PROMPTS = [
    ("", "request 'it' is empty"),
    ([], "request 'it' is empty"),
    ("a\ud800b", "request 'it' has a text 'a\\ud800b'"),
    ([1.0, 2.0], "request 'it' has prompt_token_ids[0] 1.0"),
    (np.array([1.0]), "request 'it' has prompt_token_ids[0] 1.0"),
    (["1"], "request 'it' has prompt_token_ids[0] '1'"),
    ([True], "request 'it' has prompt_token_ids[0] True"),
    ([256], "request 'it' has token id 256"),
    ([2**70], "request 'it' has token id 1180591620717411303424"),
    (b"bytes", "request 'it' has prompt_token_ids b'bytes'"),
    (5, "request 'it' has prompt_token_ids 5"),
    (None, "request 'it' has neither"),
    ({"prompt": 5}, "request 'it' has a text 5"),
    ({"prompt_token_ids": "abc"}, "request 'it' has prompt_token_ids 'abc'"),
    ({"prompt": "a", "multi_modal_data": {}}, "request 'it' has no 'multi_modal_data'"),
    ({"prompt": "a", "cache_salt": 5}, "request 'it' has a cache_salt 5"),
    ({"prompt": "a", 5: 6}, "request 'it' has no 5"),
    ([5] * 128, "request 'it' has 128 tokens; the model's context holds 128"),
]


@pytest.mark.parametrize(("prompt", "words"), PROMPTS, ids=[words for _, words in PROMPTS])
def test_prompts_that_are_none_are_named(llm, alone, prompt, words):
    assert ride_beside(llm, alone, prompt, SamplingParams()).startswith(words)


@pytest.mark.parametrize(
    "prompt",
    [
        [1, 2, 3],
        (1, 2, 3),
        np.array([1, 2, 3]),
        torch.tensor([1, 2, 3]),
        [np.int64(1), torch.tensor(2), 3],
        TextPrompt(prompt="Hi"),
        TokensPrompt(prompt_token_ids=[1, 2, 3], cache_salt="a tenant"),
        {"prompt": "Hi", "multi_modal_data": None},
        [5] * 127,
    ],
    ids=str,
)
def test_every_form_of_a_prompt(llm, alone, prompt):
    assert ride_beside(llm, alone, prompt, SamplingParams(max_tokens=3)) is None


def test_a_list_that_was_changed_after_the_check_is_checked_again(llm, alone):
    params = SamplingParams(max_tokens=4, stop=["a"])
    params.stop.append(5)
    assert ride_beside(llm, alone, "Hi", params).startswith("stop[1] 5")


def test_parameters_that_change_after_a_request_came_do_not_change_it(llm):
    params = SamplingParams(max_tokens=6, temperature=0, ignore_eos=True)
    llm.add_request("it", "Hi", params)
    params.max_tokens = 2
    assert len(told(llm)["it"].outputs[0].token_ids) == 6


@pytest.mark.parametrize("request_id", [5, None, ["a"], b"a"])
def test_an_id_that_is_no_text(llm, request_id):
    with pytest.raises(CourseError, match=r"request_id .*: give a text"):
        llm.add_request(request_id, "Hi")
    assert not llm.has_unfinished_requests()


@pytest.mark.parametrize("params", [{"temperature": 0}, 5, [SamplingParams(), None]])
def test_params_that_are_none(llm, params):
    with pytest.raises(CourseError, match=r"sampling_params .*: give a SamplingParams"):
        llm.generate(["Hi"] * 2, params)


# ----- the constructor -----


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"block_size": 0}, "block_size 0: give at least 1"),
        ({"block_size": 2.5}, "block_size 2.5: give at least 1"),
        ({"max_num_seqs": "4"}, "max_num_seqs '4': give at least 1"),
        ({"max_num_seqs": True}, "max_num_seqs True"),
        ({"max_num_batched_tokens": 0}, "max_num_batched_tokens 0"),
        ({"gpu_memory_utilization": math.nan}, "gpu_memory_utilization nan"),
        ({"num_blocks": 2**63}, "num_blocks 9223372036854775808"),
        ({"num_blocks": 2**31 - 1}, "num_blocks 2147483647 of block_size 16 are "),
        ({"block_size": 2**31 - 1}, "num_blocks 40 of block_size 2147483647 are "),
        ({"max_num_seqs": 65_537}, "max_num_seqs 65537: give at least 1, and at most 65,536"),
        ({"max_model_len": 129}, "max_model_len 129: the model was made for 128 positions"),
        ({"seed": 1.5}, "seed 1.5"),
        ({"seed": 2**64}, "seed 18446744073709551616"),
        ({"policy": 5}, "policy 5: give one of type str or Policy"),
        ({"dtype": 5}, "dtype 5"),
        ({"enforce_eager": "yes"}, "enforce_eager 'yes': give True or False"),
        ({"tensor_parallel_size": 2}, "tensor_parallel_size 2: leave it at 1, this engine does nothing else"),
        ({"tensor_parallel_size": True}, "tensor_parallel_size True: leave it at 1"),
        ({"quantization": "awq"}, "quantization 'awq': leave it at None"),
        ({"max_num_seq": 4}, "LLM has no 'max_num_seq': did you mean 'max_num_seqs'?"),
        ({"entirely_new": 4}, "LLM has no 'entirely_new': leave it out"),
    ],
)
def test_options_that_nothing_could_run_with(make, options, words):
    with pytest.raises(CourseError) as refused:
        make(**options)
    assert str(refused.value).startswith(words)


def test_options_of_vllm_that_change_nothing_are_taken(make):
    taken = {name: known[0] for name, known in LEFT_OUT.items()} | dict.fromkeys(NO_MATTER, True)
    others = {"seed": None, "tokenizer": None, "num_gpu_blocks_override": None}
    assert make(**taken, **others).generate("Hi", use_tqdm=False)
    assert make(num_blocks=None, num_gpu_blocks_override=20).num_blocks == 20


def test_vllms_names_of_types(folder):
    made = LLM(folder, tokenizer=str(folder), dtype="float", tensor_parallel_size=1, **SIZES)
    assert made.model.dtype is torch.float32


@pytest.mark.parametrize(
    "seed", [0, 2**31, 1_795_812_726_241_118_942, 2**64 - 1, -(2**63), np.int64(5), None]
)
def test_any_seed_of_an_engine(make, seed):
    llm = make(seed=seed)
    again = make(seed=llm.seed)
    params = SamplingParams(max_tokens=6, ignore_eos=True)
    first, second = (each.generate(["Hi", "Hi"], params, use_tqdm=False) for each in (llm, again))
    assert first == second
    assert first[0].outputs[0].token_ids != first[1].outputs[0].token_ids


# ----- from the types' own schemas -----

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**63, 2**64, -(2**63) - 1, 10**400, -1, 0]),
    st.floats(),
    st.text(max_size=4),
    st.binary(max_size=3),
    st.sampled_from(
        ["\ud800", b"", math.nan, (), {}, object(), np.float32(0.5), np.int8(3), torch.tensor(2), len]
    ),
    st.lists(st.one_of(st.integers(-5, 300), st.text(max_size=2), st.floats(), st.none()), max_size=3),
    st.builds(lambda values: np.array(values), st.lists(st.integers(-5, 300), max_size=3)),
    st.dictionaries(st.one_of(st.integers(-5, 300), st.text(max_size=2)), st.floats(), max_size=2),
)


# NumPy's and torch's scalars, and Python's own number. One that cannot hold a value is not tried with it.
DRESSES = {
    "integer": [int, np.int64, np.uint64, np.int8, np.array, torch.tensor],
    "number": [float, np.float64, np.array, lambda value: torch.tensor(value, dtype=torch.float64)],
    "boolean": [bool, np.bool_, torch.tensor],
}


def dressed(kind, found):
    """`found`'s values as scalars of any library."""

    def put_on(pair):
        value, dress = pair
        try:
            return dress(value)
        except (OverflowError, RuntimeError, ValueError):
            return value

    return st.tuples(found, st.sampled_from(DRESSES[kind])).map(put_on)


def limits(schema):
    """The least and the most that a schema of a number allows, and whether each is allowed itself."""
    least = schema.get("ge", schema.get("gt", -1e308))
    most = min(schema.get("le", math.inf), schema.get("lt", math.inf))
    return least, min(most, 1e308), "gt" not in schema, most != schema.get("lt")


def values(schema):
    """Values that a JSON schema allows."""
    if "anyOf" in schema:
        return st.one_of(*map(values, schema["anyOf"]))
    kind = schema.get("type")
    least, most, has_least, has_most = limits(schema)
    if kind == "integer":
        least, most = int(least) + (not has_least), int(most) - (not has_most)
        return dressed(kind, st.integers(least, most) | st.integers(max(least, 0), min(most, 20)))
    if kind == "number":
        edges = {"exclude_min": not has_least, "exclude_max": not has_most}
        return dressed(
            kind, st.floats(least, most, **edges) | st.floats(max(least, 0), min(most, 2), **edges)
        )
    if kind == "boolean":
        return dressed(kind, st.booleans())
    if kind == "array":
        return st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=3)
    if kind == "object":
        keys = st.integers(0, 255)  # as text in JSON
        return st.dictionaries(keys, values(schema["additionalProperties"]), max_size=3)
    if kind == "string":
        return st.text(TEXT, min_size=schema.get("minLength", 0), max_size=4)
    if kind == "null":
        return st.none()
    return st.just(schema["default"])  # a parameter of vLLM's that may be given at its default alone


def beyond(schema):
    """Values just outside of what a JSON schema allows, or of any other kind."""
    if "anyOf" in schema:
        return st.one_of(*map(beyond, schema["anyOf"]))
    if schema.get("type") not in ("integer", "number"):
        return ANYTHING
    least, most, has_least, has_most = limits(schema)
    edges = [
        least - has_least if abs(least) < 1e15 else math.nan,
        most + has_most if most < 1e15 else math.inf,
    ]
    return st.one_of(st.sampled_from(edges), ANYTHING)


TEXT = st.characters(exclude_categories=["Cs"])  # half of a character is refused
SCHEMA = TypeAdapter(SamplingParams).json_schema(mode="serialization")["properties"]
IDS = st.lists(dressed("integer", st.integers(0, 255)), min_size=1, max_size=3)
# Of what the schema allows, what a model of 256 tokens can do and a test has time for: most of it must ride.
FITTING = {
    "n": dressed("integer", st.integers(1, 3)),
    "max_tokens": st.none() | dressed("integer", st.integers(8, 12)),
    "min_tokens": dressed("integer", st.integers(0, 8)),
    "stop_token_ids": IDS,
    "allowed_token_ids": IDS,
    "detokenize": st.just(True),
}
INSIDE = {name: values(schema) for name, schema in SCHEMA.items()} | FITTING
SOME_INSIDE = st.fixed_dictionaries({}, optional=INSIDE)
# What no schema of a single parameter can say.
BETWEEN_PARAMETERS = ("min_tokens", "n ", "request 'it' has the bad word")


def test_the_schema_knows_every_parameter():
    assert SCHEMA.keys() == {name for name in get_type_hints(SamplingParams) if not name.startswith("_")}
    assert json.dumps(SCHEMA["temperature"])
    numbers = [schema for schema in SCHEMA.values() if schema.get("type") in ("integer", "number")]
    assert len(numbers) >= 9
    assert all({"ge", "gt"} & schema.keys() for schema in numbers)


def test_parameters_that_the_schema_allows_ride(llm, alone):
    rode = Counter()

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    @given(SOME_INSIDE)
    @example({"temperature": 1e308, "min_p": 1.0})
    @example({"logit_bias": {5: 1e20, 6: -1e20}, "repetition_penalty": 1e-10, "temperature": 1.1e-5})
    @example({"allowed_token_ids": [5], "logit_bias": {5: -1e20}, "top_k": 1, "top_p": 1e-46})
    def ride(found):
        refusal = ride_beside(llm, alone, "Hi", lambda: SamplingParams(**{"max_tokens": 9, **found}))
        rode[refusal is None] += 1
        assert refusal is None or refusal.startswith(BETWEEN_PARAMETERS), refusal

    ride()
    assert rode[True] > 2 * rode[False], rode


ODD = st.sampled_from(list(SCHEMA)).flatmap(
    lambda name: st.tuples(st.just(name), beyond(SCHEMA[name]), SOME_INSIDE)
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(ODD)
@example(("stop", ["a" * 500], {}))
@example(("repetition_penalty", 1e-320, {}))
@example(("logit_bias", {5: 1e308}, {}))
@example(("n", 16_385, {}))
def test_one_odd_parameter_is_named_with_its_value_or_rides(llm, alone, odd):
    name, value, others = odd
    assume(name != "n" or not isinstance(value, int) or not 3 < value <= 16_384)  # many answers, really given
    given_params = {"max_tokens": 9, **others, name: value}
    refusal = ride_beside(llm, alone, "Hi", lambda: SamplingParams(**given_params))
    if refusal and not refusal.startswith((*BETWEEN_PARAMETERS, "stop ", "request 'it'")):
        assert refusal.startswith(name), (refusal, odd)
        assert any(f": {verb}" in refusal for verb in ("give ", "ask ", "leave it out")), refusal
        if not refusal.startswith(f"{name}["):  # the whole value, and not one inside of it
            assert refusal.startswith((f"{name} {show(value)}: ", f"{name} {show(plain(value))}: ")), refusal


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(
        ANYTHING,
        st.lists(st.integers(0, 255), max_size=140),
        st.lists(dressed("integer", st.integers(0, 255)), min_size=1, max_size=9),
        st.lists(st.integers(0, 255), min_size=1, max_size=9).map(np.array),
        st.lists(st.integers(0, 255), min_size=1, max_size=9).map(torch.tensor),
        st.dictionaries(st.sampled_from(["prompt", "prompt_token_ids", "cache_salt", "other"]), ANYTHING),
    )
)
def test_any_prompt_is_refused_in_one_line_or_rides(llm, alone, prompt):
    refusal = ride_beside(llm, alone, prompt, SamplingParams(max_tokens=3))
    assert refusal is None or refusal.startswith("request 'it'")


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(ANYTHING, st.lists(st.text(TEXT, min_size=1, max_size=3), max_size=3)),
    st.one_of(st.none(), ANYTHING),
    st.fixed_dictionaries({}, optional={"priority": ANYTHING, "lora_request": ANYTHING}),
)
def test_any_call_is_refused_in_one_line_or_answered(llm, prompts, params, others):
    for call in (llm.generate, llm.chat):
        refusal = ""
        try:
            assert call(prompts, params, use_tqdm=False, **others)
        except CourseError as error:
            refusal = str(error)
        assert "\n" not in refusal
        assert len(refusal.encode()) < 400
    assert not llm.has_unfinished_requests()
    assert llm.scheduler.kv_cache.num_free == llm.num_blocks - 1


# Options by the schemas of their annotations; sizes small, since memory is really taken.
OWN = {
    name: TypeAdapter(hint, config=STRICT).json_schema(mode="serialization")
    for name, hint in get_type_hints(LLM.__init__, include_extras=True).items()
    if name
    in ("gpu_memory_utilization", "enable_prefix_caching", "enforce_eager", "async_scheduling", "seed")
}
SMALL = {
    "max_num_seqs": st.none() | dressed("integer", st.integers(1, 8)),
    "max_num_batched_tokens": st.none() | dressed("integer", st.integers(1, 64)),
    "max_model_len": st.none() | dressed("integer", st.integers(4, 128)),
    "num_blocks": dressed("integer", st.integers(12, 40)),
    "block_size": dressed("integer", st.integers(1, 32)),
}
OPTIONS = {
    **{name: values(schema) for name, schema in OWN.items()},
    **SMALL,
    **{name: st.sampled_from(known) for name, known in LEFT_OUT.items()},
    **dict.fromkeys(NO_MATTER, ANYTHING),
}
SOME_OPTIONS = st.fixed_dictionaries({}, optional=OPTIONS)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(SOME_OPTIONS)
def test_options_that_the_schemas_allow_make_an_engine(make, found):
    answers = make(**found).generate([[1, 2]] * 3, SamplingParams(max_tokens=2), use_tqdm=False)
    assert [len(each.outputs[0].token_ids) for each in answers if each.finished]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from([*get_type_hints(LLM.__init__), *LEFT_OUT, "x"]), ANYTHING, SOME_OPTIONS)
def test_one_odd_option_is_named_or_makes_an_engine(make, name, value, others):
    assume(name not in ("model", "return", "others"))
    is_size = name in (*SMALL, "num_gpu_blocks_override") and isinstance(value, int)
    assume(not (is_size and 1_000 < value < 2**31))  # much memory, and really taken
    refusal = ""
    try:
        assert make(**{**others, name: value}).generate([1, 2], SamplingParams(max_tokens=2), use_tqdm=False)
    except CourseError as error:
        refusal = str(error)
        assert name in refusal or name in ("block_size", "num_blocks", "num_gpu_blocks_override"), refusal
    assert "\n" not in refusal
