"""What is accepted at the door never fails later, and what is not gets one line that names it; nobody is stopped."""

import json
import math
from typing import get_type_hints

import numpy as np
import pytest
import torch
from engine_models import write_config, write_tokenizer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from lessonlib.engine import LLM, SamplingParams, TextPrompt, TokensPrompt
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
    llm.start_ride()
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
    for params in ({"top_p": 1e-46}, {"temperature": 1e-38}, {"top_k": 1}):
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


def values(schema):
    """Values that a JSON schema allows, and now and then one just beyond."""
    if "anyOf" in schema:
        return st.one_of(*map(values, schema["anyOf"]))
    kind = schema.get("type")
    if kind in ("integer", "number"):
        least = schema.get("minimum", schema.get("exclusiveMinimum", -(2**63)))
        most = schema.get("maximum", schema.get("exclusiveMaximum", 2**64))
        near = st.sampled_from([least, most, least - 1, most + 1, 0, 1, 2, 5])
        if kind == "integer":
            return st.one_of(st.integers(least, most), near, st.integers(0, 20))
        return st.one_of(st.floats(least, most), near.map(float), st.floats(0, 2))
    if kind == "array":
        return st.lists(values(schema["items"]), max_size=3)
    if kind == "string":
        return st.text(min_size=schema.get("minLength", 0), max_size=4)
    return {"boolean": st.booleans(), "null": st.none()}.get(kind, ANYTHING)


SCHEMA = TypeAdapter(SamplingParams).json_schema(mode="serialization")["properties"]
GIVEN = st.fixed_dictionaries(
    {},
    optional={name: st.one_of(values(schema), values(schema), ANYTHING) for name, schema in SCHEMA.items()},
)


def test_the_schema_knows_every_parameter():
    assert SCHEMA.keys() == {name for name in get_type_hints(SamplingParams) if not name.startswith("_")}
    assert json.dumps(SCHEMA["temperature"])


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(GIVEN)
@example({"stop": ["a" * 500]})
def test_any_parameters_are_refused_in_one_line_or_ride(llm, alone, found):
    refusal = ride_beside(llm, alone, "Hi", lambda: SamplingParams(**{"max_tokens": 5, **found}))
    if refusal and not refusal.startswith("request 'it'"):
        assert any(name in refusal for name in found)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(
        ANYTHING,
        st.lists(st.integers(0, 255), max_size=140),
        st.dictionaries(st.sampled_from(["prompt", "prompt_token_ids", "cache_salt", "other"]), ANYTHING),
    )
)
def test_any_prompt_is_refused_in_one_line_or_rides(llm, alone, prompt):
    ride_beside(llm, alone, prompt, SamplingParams(max_tokens=3))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from([*get_type_hints(LLM.__init__), *LEFT_OUT, "x"]), ANYTHING))
def test_any_options_are_refused_in_one_line_or_make_an_engine(make, found):
    sizes = ("num_blocks", "num_gpu_blocks_override", "block_size", "max_num_seqs")
    found = {
        name: value
        for name, value in found.items()
        if name not in ("model", "return", "others")
        and not (
            name in sizes and isinstance(value, int) and 1_000 < value < 2**31
        )  # much memory, and really taken
    }
    refusal = ""
    try:
        assert make(**found).generate([1, 2], SamplingParams(max_tokens=2), use_tqdm=False)
    except CourseError as error:
        refusal = str(error)
    assert "\n" not in refusal
