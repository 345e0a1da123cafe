"""vLLM's documented calls and random settings, here as recorded there; with vLLM at hand, both at once."""

import json

import needs
import pytest

from benchmarks import vllm_calls, vllm_child
from lessonlib import recorded
from lessonlib.contenders.process import vllm_python
from lessonlib.engine import LLM
from lessonlib.engine.frontend.calls import MissingCallError
from lessonlib.errors import CourseError

try:
    PYTHON = vllm_python()
except CourseError:
    PYTHON = ""

RIDDEN = ("llm.generate(", "llm.chat(", "[each", "[len", "len(", "twice", "samples_are", "bool(")
EXAMPLES = vllm_child.examples()
# Each that computes takes a while: a few of them in every run, the others with vLLM beside.
QUICK = [each for each in EXAMPLES if not each.code.startswith(RIDDEN) or each.group == "what is left out"]
QUICK += [each for each in EXAMPLES if each not in QUICK and each.group != "prefix caching"][::4]
SETTINGS = (0, 7, 14, 21)
# Those of one engine, so that vLLM starts once: cached prefixes in memory for two or three requests.


@pytest.fixture(scope="module")
def record():
    return recorded.load(vllm_calls.NAME)


@pytest.fixture(scope="module")
def space(model_path):
    """What an example names, with the course's engine."""
    made = vllm_child.load("course")
    llm = LLM(model_path, device="cpu", **vllm_child.MADE_WITH)
    return vllm_child.names(llm, made, str(model_path))


def test_the_page_says_what_the_record_says(record):
    text = vllm_calls.PAGE.read_text(encoding="utf-8")
    made = vllm_calls.table(vllm_calls.rows_of(record), vllm_calls.versions(record))
    assert vllm_calls.page(text, made) == text, "python -m benchmarks.vllm_calls --table"
    assert record["result"].keys() == {each.code for each in EXAMPLES}


def test_every_difference_has_its_reason(record):
    rows = vllm_calls.rows_of(record)
    assert len(rows) > 91
    for row in rows:
        assert bool(row["line"]) == (row["verdict"] != "same"), row
        assert "\n" not in row["line"]
    assert {row["code"] for row in rows if row["verdict"] == "different"} == vllm_child.WHY.keys()


@pytest.mark.parametrize("example", QUICK, ids=lambda each: each.code)
def test_a_call_gives_here_what_the_record_says(space, record, example):
    found, entry = vllm_child.outcome(example.code, space), record["result"][example.code]
    assert vllm_calls.verdict(found, entry["vllm"]) == entry["course"]["verdict"]
    assert vllm_calls.line_of(found) == entry["course"].get("line", "")
    if "error" in found:
        assert found["lines"] == 1
        assert found["error"] in (CourseError.__name__, MissingCallError.__name__)


def test_results_are_compared_to_the_last_number():
    ours = {"value": [{"logprobs": [{"5": [-0.5, 1], "6": [-12.5, 5000]}], "text": "a"}]}
    assert vllm_calls.verdict(ours, json.loads(json.dumps(ours))) == "same"
    for before, after, due in (
        ("-0.5, 1", "-0.502, 1", "different"),
        ("-0.5, 1", "-0.5, 2", "different"),
        ("-12.5, 5000", "-12.5, 5001", "same"),
        ("-12.5, 5000", "-12.5, 5100", "different"),
        ('"a"', '"b"', "different"),
    ):
        theirs = json.loads(json.dumps(ours).replace(before, after))
        assert vllm_calls.verdict(ours, theirs) == due
    assert vllm_calls.verdict(ours, {"error": "ValueError"}) == "different"
    assert vllm_calls.verdict({"error": "CourseError"}, ours) == "refused"


# ----- random settings -----


def test_settings_are_of_every_kind():
    made = [vllm_child.setting(number) for number in range(vllm_child.SETTINGS)]
    params = [each for _, _, several in made for each in several]
    for name in ("stop", "stop_token_ids", "logprobs", "prompt_logprobs", "min_tokens", "repetition_penalty"):
        assert 5 < sum(bool(each.get(name)) for each in params) < len(params)
    assert sum(options["enable_prefix_caching"] for options, _, _ in made) == 30
    assert sum("num_gpu_blocks_override" in options for options, _, _ in made) == 20
    assert sum("max_num_batched_tokens" in options for options, _, _ in made) == 20


def test_a_few_settings_give_what_vllm_gave(model_path):
    expected = recorded.load(vllm_calls.PARITY)["result"]
    assert expected.keys() == set(map(str, range(vllm_child.SETTINGS)))
    for name, found in vllm_child.parity("course", str(model_path), list(SETTINGS)).items():
        assert vllm_calls.is_same(found, expected[name]), name


# ----- with vLLM -----


@pytest.mark.prove
@pytest.mark.vllm
@needs.VLLM.unless(PYTHON)
def test_both_engines_give_what_the_page_says(record):
    rows = vllm_calls.judge(vllm_calls.ride("course", "calls"), vllm_calls.ride("vllm", "calls"))
    assert rows == vllm_calls.rows_of(record)


@pytest.mark.prove
@pytest.mark.vllm
@needs.VLLM.unless(PYTHON)
def test_sixty_random_settings_give_the_same_in_both():
    ours, theirs = (vllm_calls.ride(engine, "parity") for engine in ("course", "vllm"))
    assert ours.keys() == theirs.keys()
    assert len(ours) == vllm_child.SETTINGS
    assert not [name for name in ours if not vllm_calls.is_same(ours[name], theirs[name])]
