"""The seed engine on the real model: both policies give Hugging Face's own tokens."""

import pytest
import torch

from lessonlib.engine import LLM, SamplingParams
from lessonlib.errors import CourseError
from lessonlib.trace import Kind

QUESTIONS = [
    "What is the capital of France?",
    "Write a haiku about rain.",
    "What is 2+2?",
    "Name the planets.",
    "Who wrote Hamlet?",
    "List three fruits.",
    "Say hello.",
]
LONGEST = 40


@pytest.fixture(scope="module")
def llm(model_path):
    return LLM(model_path, max_num_seqs=3)


@pytest.fixture(scope="module")
def rides(llm):
    """policy -> (answers, Trace), the same questions both ways."""
    conversations = [[{"role": "user", "content": question}] for question in QUESTIONS]
    found = {}
    for llm.policy in ("static", "continuous"):
        answers = llm.chat(conversations, SamplingParams(max_tokens=LONGEST), use_tqdm=False)
        found[llm.policy] = answers, llm.trace
    return found


def test_same_tokens_as_hugging_face_alone(model_path, rides):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    for place, answer in enumerate(rides["continuous"][0]):
        prompt = torch.tensor([answer.prompt_token_ids])
        whole = model.generate(prompt, max_new_tokens=LONGEST, do_sample=False)[0]
        due = whole[prompt.shape[1] :].tolist()
        assert answer.outputs[0].token_ids == due
        assert rides["static"][0][place].outputs[0].token_ids == due


def test_answers_stop_by_themselves_and_say_so(rides):
    answers = [answer.outputs[0] for answer in rides["continuous"][0]]
    assert {answer.finish_reason for answer in answers} == {"stop", "length"}
    assert all(len(a.token_ids) == LONGEST for a in answers if a.finish_reason == "length")
    assert "Paris" in answers[0].text


def test_the_trace_tells_what_happened(rides):
    for policy, (answers, trace) in rides.items():
        assert trace.output_tokens().tolist() == [len(a.outputs[0].token_ids) for a in answers]
        assert trace.rows(Kind.PREFILL)["tokens"].tolist() == [len(a.prompt_token_ids) for a in answers]
        assert trace.steps["running"].max() <= 3
        assert trace.header.policy == policy
        assert trace.header.clock == "seconds"
        assert trace.span > 0
    assert rides["continuous"][1].num_steps < rides["static"][1].num_steps


def test_neighbours_do_not_change_an_answer(llm, rides):
    answer = rides["continuous"][0][1]
    alone = llm.generate(
        [{"prompt_token_ids": answer.prompt_token_ids}], SamplingParams(max_tokens=LONGEST), use_tqdm=False
    )
    assert alone[0].outputs[0].token_ids == answer.outputs[0].token_ids


def test_ignore_eos_goes_on(llm, rides):
    prompt = rides["continuous"][0][0].prompt
    out = llm.generate([prompt], SamplingParams(max_tokens=20, ignore_eos=True), use_tqdm=False)[0].outputs[0]
    assert len(out.token_ids) == 20
    assert out.finish_reason == "length" or out.token_ids[-1] in llm.model.config.eos_token_ids


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda llm: llm.generate([]), "no prompts"),
        (lambda llm: llm.generate("hello"), "give a list"),
        (lambda llm: llm.generate([""]), "prompt 0 is empty"),
        (lambda llm: llm.generate([{"prompt_token_ids": [5] * 8_190}]), "context holds 8192"),
        (lambda llm: llm.generate(["a"], [SamplingParams()] * 2), "2 sampling params for 1"),
        (lambda llm: SamplingParams(max_tokens=0), "max_tokens 0"),
        (lambda llm: SamplingParams(temperature=0.7), "temperature 0.7"),
        (lambda llm: LLM(policy="magic"), "unknown policy"),
        (lambda llm: LLM(max_num_seqs=0), "0 slots"),
    ],
)
def test_bad_input_is_named(llm, call, words):
    with pytest.raises(CourseError, match=words):
        call(llm)
