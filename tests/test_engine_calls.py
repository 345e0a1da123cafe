"""What vLLM documents and this engine takes: several answers, rules for logits, stop strings, forms of calls."""

import json
import random
from itertools import pairwise

import pytest
import torch
from engine_models import write_config, write_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupts import Cut
from transformers import (
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
)

from lessonlib.engine import LLM, SamplingParams
from lessonlib.engine.extras.logits import LogitRules
from lessonlib.engine.extras.text import AnswerText
from lessonlib.engine.frontend.calls import METHODS_LEFT_OUT
from lessonlib.errors import CourseError
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.trace import Kind

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {"max_num_seqs": 4, "max_num_batched_tokens": 32, "num_blocks": 40, "load_format": "dummy"}
IN_FLIGHT = [pytest.param({}, id="one"), pytest.param({"async_scheduling": True}, id="two in flight")]


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
    return make()


def ask(llm, prompt="Hello", **params):
    params = {"max_tokens": 10, "ignore_eos": True, **params}
    return llm.generate(prompt, SamplingParams(**params), use_tqdm=False)[0]


def tokens(output):
    return [each.token_ids for each in output.outputs]


def told(llm):
    """Ride everyone to the end: every output of each request."""
    seen = {}
    for _ in range(200):
        for output in llm.step():
            seen.setdefault(output.request_id, []).append(output)
        if not llm.has_unfinished_requests():
            return seen
    raise AssertionError("somebody rides for ever")


# ----- several answers -----


@pytest.mark.parametrize("options", IN_FLIGHT)
def test_several_answers_are_those_of_seeds_in_a_row(make, options):
    llm = make(**options)
    found = ask(llm, n=3, seed=7)
    assert [each.index for each in found.outputs] == [0, 1, 2]
    assert tokens(found) == [tokens(ask(llm, seed=seed))[0] for seed in (7, 8, 9)]
    assert found.finished
    assert ask(llm, n=3, seed=2**64 - 1).finished


def test_without_a_seed_each_answer_is_another_and_the_next_request_too(make):
    llm, again = make(), make()
    found = [*tokens(ask(llm, n=3)), *tokens(ask(llm))]
    assert len({tuple(each) for each in found}) == 4
    assert [*tokens(ask(again, n=3)), *tokens(ask(again))] == found


def test_the_prompt_is_computed_once_for_all_answers(make):
    llm = make(max_num_seqs=8)
    prompt = {"prompt_token_ids": list(range(3, 30))}
    ask(llm, prompt, n=4, seed=0)
    prefill = llm.trace.rows(Kind.PREFILL)
    assert prefill["tokens"].tolist() == [27, 1, 1, 1]
    ask(llm, prompt, n=4, seed=0, max_tokens=1)
    assert llm.trace.rows(Kind.PREFILL)["tokens"].tolist() == [27, 1, 1, 1]
    assert llm.scheduler.kv_cache.num_free == llm.num_blocks - 1


@pytest.mark.parametrize("options", IN_FLIGHT)
def test_more_answers_than_slots_or_memory(make, options):
    expected = [tokens(ask(make(), seed=seed))[0] for seed in range(6)]
    for sizes in ({"max_num_seqs": 2}, {"max_num_seqs": 1}, {"num_blocks": 5, "block_size": 4}):
        llm = make(**sizes, **options)
        assert tokens(ask(llm, n=6, seed=0)) == expected
        assert llm.scheduler.kv_cache.num_free == llm.num_blocks - 1


def test_step_by_step_a_request_comes_back_whole(llm):
    llm.start_trace()
    llm.add_request("several", "Hello", SamplingParams(n=2, seed=1, max_tokens=6, ignore_eos=True))
    llm.add_request("one", "Hi", SamplingParams(seed=1, max_tokens=3, ignore_eos=True))
    seen = told(llm)
    assert seen.keys() == {"several", "one"}
    assert [output.finished for output in seen["several"]].count(True) == 1
    assert seen["several"][-1].finished
    assert [len(each.token_ids) for each in seen["several"][-1].outputs] == [6, 6]
    assert tokens(seen["several"][-1]) == tokens(ask(llm, n=2, seed=1, max_tokens=6))


@pytest.mark.parametrize("after", [0, 1, 2, 5])
def test_all_answers_of_a_request_leave_together(llm, after):
    llm.start_trace()
    llm.add_request("several", "Hello", SamplingParams(n=3, seed=1, ignore_eos=True))
    for _ in range(after):
        llm.step()
    left = llm.abort("several")
    assert {each.finish_reason for each in left.outputs} == {"abort"}
    assert not llm.has_unfinished_requests()
    assert llm.scheduler.kv_cache.num_free == llm.num_blocks - 1
    with pytest.raises(CourseError, match="no request 'several'"):
        llm.abort("several")


@pytest.mark.parametrize("options", IN_FLIGHT)
def test_several_answers_go_on_where_steps_are_cut_short(make, options):
    asked = {
        str(number): SamplingParams(
            n=3, seed=number, max_tokens=8, min_tokens=2, repetition_penalty=1.2, stop=[chr(97 + number)]
        )
        for number in range(5)
    }
    llm, dice = make(num_blocks=14, **options), random.Random(1)
    for name, params in asked.items():
        llm.add_request(name, "Hello " + name, params)
    found, cuts = {}, 0
    while llm.has_unfinished_requests():
        countdown = iter(range(dice.randint(1, 600), 0, -1))
        cut = Cut(lambda line, left=countdown: next(left, 0) == 1)
        try:
            with cut:
                outputs = llm.step()
        except KeyboardInterrupt:
            cuts += 1
            outputs = llm.step()
        found |= {output.request_id: output for output in outputs if output.finished}
    assert cuts > 20
    assert llm.scheduler.kv_cache.num_free == llm.num_blocks - 1
    alone = make()
    for name, params in asked.items():
        assert tokens(found[name]) == tokens(alone.generate("Hello " + name, params, use_tqdm=False)[0])


def test_a_scheduler_without_fork_says_so(make):
    class Plain:
        def __init__(self, *args, **options):
            self._scheduler = Scheduler(*args, **options)

        def __getattr__(self, name):
            if name == "fork":
                raise AttributeError(name)
            return getattr(self._scheduler, name)

    llm = make(scheduler_cls=Plain)
    assert ask(llm)
    with pytest.raises(CourseError, match="prompt 0 has n 2, and the scheduler has no fork"):
        ask(llm, n=2)


# ----- rules for logits -----


def changed(row, params, prompt=(), output=(), ends=(2,), bad_words=()):
    """A row of logits as the rules leave it."""
    rules = LogitRules(SamplingParams(**params), prompt, ends, bad_words)
    assert not rules.change_nothing
    row = row.clone()
    rules.apply(row, output, len(output))
    return row


@pytest.mark.parametrize("seed", range(5))
def test_rules_are_those_of_hugging_face(seed):
    torch.manual_seed(seed)
    dice = random.Random(seed)
    row = torch.randn(50) * 4
    prompt, output = ([dice.randrange(50) for _ in range(size)] for size in (6, 9))
    ids = torch.tensor([prompt + output])
    bad = [[dice.randrange(3, 50)], [output[-1], 7], [output[-2], output[-1], 8], [output[-2], 9]]
    temperature, share = dice.uniform(0.3, 2), dice.uniform(0.01, 0.9)
    cases = [
        ({"repetition_penalty": 1.4}, RepetitionPenaltyLogitsProcessor(1.4)),
        ({"repetition_penalty": 0.6}, RepetitionPenaltyLogitsProcessor(0.6)),
        ({"logit_bias": {4: -3.0, 5: 2.5}}, SequenceBiasLogitsProcessor([[[4], -3.0], [[5], 2.5]])),
        ({"min_tokens": 10}, MinNewTokensLengthLogitsProcessor(len(prompt), 10, [2], device="cpu")),
        (
            {"min_tokens": 9, "logit_bias": {3: 0.0}},
            MinNewTokensLengthLogitsProcessor(6, 9, [2], device="cpu"),
        ),
        ({"bad_words": ["x"]}, NoBadWordsLogitsProcessor(bad)),
    ]
    for params, theirs in cases:
        found = changed(row, params, prompt, output, bad_words=bad if "bad_words" in params else ())
        torch.testing.assert_close(found, theirs(ids, row[None].clone())[0])
    heated = changed(row, {"min_p": share, "temperature": temperature}) / temperature
    torch.testing.assert_close(heated, MinPLogitsWarper(share)(ids, row[None] / temperature)[0])


def test_presence_and_frequency_count_the_answer_alone():
    row = torch.zeros(6)
    found = changed(
        row, {"presence_penalty": 0.5, "frequency_penalty": 0.25}, prompt=[0, 5], output=[1, 3, 3]
    )
    assert found.tolist() == [0, -0.75, 0, -1.0, 0, 0]


def test_allowed_tokens_and_nothing_that_is_left():
    row = torch.randn(6)
    found = changed(row, {"allowed_token_ids": [1, 4]})
    assert found.isfinite().nonzero()[:, 0].tolist() == [1, 4]
    torch.testing.assert_close(found[[1, 4]], row[[1, 4]])
    torch.testing.assert_close(changed(row, {"allowed_token_ids": [2], "min_tokens": 1}), row)


@pytest.mark.parametrize("options", IN_FLIGHT)
def test_rules_hold_in_a_ride_and_change_no_neighbor(make, options):
    llm = make(num_blocks=12, **options)
    plain = {"seed": 5, "max_tokens": 12, "ignore_eos": True}
    asked = [
        {**plain, "allowed_token_ids": [65, 66]},
        plain,
        {**plain, "temperature": 0, "logit_bias": {70: 1000}},
        {**plain, "temperature": 0, "bad_words": ["a", "bc"], "repetition_penalty": 1.3},
        {**plain, "temperature": 0},
        {**plain, "presence_penalty": 2, "frequency_penalty": 2, "min_p": 0.2, "logprobs": 2},
    ]
    params = [SamplingParams(**each) for each in asked]
    found = [each.outputs[0] for each in llm.generate(["Hello"] * len(asked), params, use_tqdm=False)]
    alone = [make().generate("Hello", each, use_tqdm=False)[0].outputs[0] for each in params]
    assert [each.token_ids for each in found] == [each.token_ids for each in alone]
    assert set(found[0].token_ids) == {65, 66}
    assert set(found[2].token_ids) == {70}
    assert 97 not in found[3].token_ids
    assert b"bc" not in bytes(found[3].token_ids)
    assert len(set(found[3].token_ids)) == 12


def test_an_end_waits_for_the_fewest_tokens(llm):
    params = SamplingParams(temperature=0, logit_bias={2: 1000}, min_tokens=4, max_tokens=9)
    assert [len(each) for each in tokens(llm.generate("Hello", params, use_tqdm=False)[0])] == [5]
    params.ignore_eos = True
    found = tokens(llm.generate("Hello", params, use_tqdm=False)[0])[0]
    assert 2 not in found[:4]
    assert set(found[4:]) == {2}


# ----- texts that end an answer -----


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from("aabbc"), min_size=1, max_size=12),
    st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3),
    st.integers(0, 4),
    st.booleans(),
)
def test_a_stop_string_is_never_shown_and_taken_back(letters, stops, fewest, includes):
    """Letter by letter, against the plain rule: of all ends after the fewest tokens the first, by the order given."""
    params = SamplingParams(stop=stops, min_tokens=fewest, max_tokens=50, include_stop_str_in_output=includes)

    class Spoken(AnswerText):
        def read(self, token_ids):
            self.text = "".join(letters[: len(token_ids)])

    answer = Spoken(None, params, [])
    whole, shown = "", [""]
    for count in range(1, len(letters) + 1):
        whole += letters[count - 1]
        due = next((stop for stop in stops if whole.endswith(stop)), None) if count > fewest else None
        assert answer.find_stop(list(range(count))) == due
        if due:
            assert answer.text == (whole if includes else whole[: -len(due)])
            shown.append(answer.text)
            break
        shown.append(answer.settled())
        held = whole[len(shown[-1]) :]
        assert not held or (not includes and any(stop.startswith(held) for stop in stops))
    assert all(after.startswith(before) for before, after in pairwise(shown))


def test_steps_show_what_stays(llm):
    text = ask(llm, temperature=0, max_tokens=16).outputs[0].text
    stop = text[8:12]
    llm.start_trace()
    llm.add_request("it", "Hello", SamplingParams(temperature=0, ignore_eos=True, stop=[stop, "never"]))
    shown = [output.outputs[0].text for output in told(llm)["it"]]
    assert all(after.startswith(before) for before, after in pairwise(shown))
    assert shown[-1] == text[: text.index(stop)]


def test_what_ends_an_answer_can_be_shown(llm):
    plain = ask(llm, temperature=0, max_tokens=16).outputs[0]
    token, stop = plain.token_ids[5], plain.text[6:8]
    assert ask(llm, temperature=0, stop=stop, include_stop_str_in_output=True).outputs[0].text.endswith(stop)
    with_end = ask(llm, temperature=0, stop_token_ids=[token], include_stop_str_in_output=True).outputs[0]
    without = ask(llm, temperature=0, stop_token_ids=[token]).outputs[0]
    assert len(with_end.text) > len(without.text)
    both = {"stop": with_end.text, "stop_token_ids": [token], "temperature": 0}
    assert ask(llm, include_stop_str_in_output=True, **both).outputs[0].stop_reason == both["stop"]
    assert ask(llm, **both).outputs[0].stop_reason == token
    assert ask(llm, temperature=0, detokenize=False).outputs[0].text == ""


# ----- what is reported -----


def test_the_tokens_of_a_prompt_are_scored(llm):
    ids = list(range(3, 90))
    found = ask(llm, {"prompt_token_ids": ids}, prompt_logprobs=2, max_tokens=1, temperature=0)
    assert found.prompt_logprobs[0] is None
    assert len(found.prompt_logprobs) == len(ids)
    for index in (1, 2, 30, 86):
        due = ask(llm, {"prompt_token_ids": ids[:index]}, logprobs=2, max_tokens=1, temperature=0)
        best = {token: each.logprob for token, each in due.outputs[0].logprobs[0].items()}
        here = {token: each.logprob for token, each in found.prompt_logprobs[index].items()}
        assert next(iter(here)) == ids[index]
        assert {token: here[token] for token in best} == pytest.approx(best, abs=1e-4)


def test_a_prompt_longer_than_a_pass_is_scored_in_pieces(llm, monkeypatch):
    from lessonlib.engine.extras import prompts

    ids = list(range(3, 60))
    whole = ask(llm, {"prompt_token_ids": ids}, prompt_logprobs=1, max_tokens=1).prompt_logprobs
    monkeypatch.setattr(prompts, "CHUNK", 16)
    pieces = ask(llm, {"prompt_token_ids": ids}, prompt_logprobs=1, max_tokens=1).prompt_logprobs
    assert [list(each or ()) for each in pieces] == [list(each or ()) for each in whole]


def test_a_riders_own_recompute_is_no_hit_of_the_cache(make):
    llm = make(num_blocks=9, block_size=4, enable_prefix_caching=True)
    prompts = [{"prompt_token_ids": [number + 3] * 9} for number in range(3)]
    params = SamplingParams(max_tokens=14, temperature=0, ignore_eos=True)
    found = llm.generate(prompts, params, use_tqdm=False)
    assert len(llm.trace.rows(Kind.PREEMPT)["request"])
    assert [each.num_cached_tokens for each in found] == [0, 0, 0]
    roomy = make(block_size=4, enable_prefix_caching=True)
    roomy.generate(prompts[0], params, use_tqdm=False)
    assert roomy.generate(prompts[0], params, use_tqdm=False)[0].num_cached_tokens == 8


def test_a_tenant_finds_no_blocks_of_another(make):
    llm = make(block_size=4, enable_prefix_caching=True)
    params = SamplingParams(max_tokens=2, temperature=0)

    def cached(**prompt):
        return llm.generate({"prompt_token_ids": list(range(3, 16)), **prompt}, params, use_tqdm=False)[0]

    asked = [{"cache_salt": "ann"}, {"cache_salt": "bob"}, {}, {"cache_salt": "ann"}, {}]
    found = [cached(**each) for each in asked]
    assert [each.num_cached_tokens for each in found] == [0, 0, 0, 12, 12]
    assert len({tuple(each.outputs[0].token_ids) for each in found}) == 1


def test_a_chosen_token_comes_first_and_then_the_likeliest(llm):
    for each in ask(llm, temperature=1.5, seed=3, logprobs=3).outputs[0].logprobs:
        first, *others = each.values()
        assert 3 <= len(each) <= 4
        assert [other.rank for other in others] == [rank for rank in (1, 2, 3) if rank != first.rank]


# ----- forms of calls -----


def test_a_checkpoints_own_defaults_hold_where_nobody_says_otherwise(folder, tmp_path):
    import shutil

    own = shutil.copytree(folder, tmp_path / "own")
    (own / "generation_config.json").write_text(
        json.dumps(
            {"top_k": 1, "temperature": 0.6, "max_new_tokens": 5, "do_sample": True, "eos_token_id": 2}
        )
    )
    llm = LLM(own, device="cpu", **SIZES)
    assert llm.get_default_sampling_params() == SamplingParams(top_k=1, temperature=0.6, max_tokens=5)
    greedy = ask(llm, temperature=0, max_tokens=5, ignore_eos=False)
    assert tokens(llm.generate("Hello", use_tqdm=False)[0]) == tokens(greedy)
    llm.add_request("it", "Hello")
    assert tokens(told(llm)["it"][-1]) == tokens(greedy)
    (own / "generation_config.json").write_text(json.dumps({"temperature": -1}))
    with pytest.raises(CourseError, match=r"generation_config.json: temperature -1: give 0"):
        LLM(own, device="cpu", **SIZES)


def test_a_conversation_can_be_gone_on_with(llm):
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello y"}]
    params = SamplingParams(max_tokens=3, temperature=0)
    (found,) = llm.chat(
        talk, params, use_tqdm=False, add_generation_prompt=False, continue_final_message=True
    )
    assert found.prompt.endswith("<assistant>Hello y")
    (found,) = llm.chat(talk[:1], params, use_tqdm=False, add_generation_prompt=False)
    assert found.prompt == "<user>Hi"
    assert (
        llm.chat([talk[:1]] * 2, params, use_tqdm=False, chat_template="{{ messages[0].content }}!")[1].prompt
        == "Hi!"
    )
    with pytest.raises(CourseError, match="give add_generation_prompt=False beside it"):
        llm.chat(talk, params, continue_final_message=True)
    with pytest.raises(CourseError, match="chat_template_content_format 'x'"):
        llm.chat(talk, params, chat_template_content_format="x")


def test_priorities_are_for_policies_that_have_tiers(make):
    params = SamplingParams(max_tokens=4, ignore_eos=True)
    llm = make(policy="sla", max_num_seqs=1)
    llm.generate(["a", "b", "c"], params, use_tqdm=False, priority=[9, 0, 5])
    first, second, third = llm.trace.rows(Kind.BOARD)["step"].tolist()
    assert second < third < first
    patient = make()
    assert patient.generate(["a", "b"], params, use_tqdm=False, priority=[0, 0])
    for found, words in (
        ([1, 0], "priority 1: policy 'continuous' has no tiers"),
        ([1], "1 priorities for 2 prompts"),
        ("high", "priority 'high': give a whole number"),
        ([0, 0.5], "priority 0.5: give a whole number"),
        ([0, True], "priority True: give a whole number"),
    ):
        with pytest.raises(CourseError, match=words):
            patient.generate(["a", "b"], params, priority=found)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda llm: llm.generate("a", None, False, None), "generate: too many positional arguments"),
        (lambda llm: llm.generate(), "generate: missing a required argument: 'prompts'"),
        (lambda llm: llm.generate("a", lora_request=object()), "lora_request <object"),
        (lambda llm: llm.generate("a", prompt_token_ids=[1]), "generate has no 'prompt_token_ids'"),
        (lambda llm: llm.chat([{"role": "user", "content": "a"}], lora=1), "generate has no 'lora'"),
        (lambda llm: llm.generate("a", SamplingParams(bad_words=[" "])), "has the bad word ' '"),
        (lambda llm: llm.generate("a", SamplingParams(logit_bias={256: 1})), "logit_bias, has token id 256"),
        (lambda llm: llm.generate("a", SamplingParams(allowed_token_ids=[-1])), "has token id -1"),
        (lambda llm: SamplingParams(0.7), "n 0.7: give a whole number from 1 to 16,384, others by name"),
        (lambda llm: SamplingParams(n=2, temperature=0), "n 2: answers at temperature 0 are all the same"),
        (lambda llm: SamplingParams(min_tokens=17), "min_tokens 17: give at most max_tokens, which is 16"),
        (lambda llm: SamplingParams(stop="a", detokenize=False), "give detokenize=True"),
        (lambda llm: SamplingParams(structured_outputs={}), "this engine has no grammar for its answers"),
        (lambda llm: llm.add_request("a\0b", "a"), "give a text without"),
        (lambda llm: LLM(llm.model, scheduling_policy="priority"), "give policy='sla' for priorities"),
    ],
)
def test_what_is_left_out_is_said_in_one_line(llm, call, words):
    with pytest.raises(CourseError) as refused:
        call(llm)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not llm.has_unfinished_requests()


@pytest.mark.parametrize("name", METHODS_LEFT_OUT)
def test_calls_that_are_left_out_say_so(llm, name):
    with pytest.raises(CourseError, match=f"{name}: this engine does not"):
        getattr(llm, name)(["Hi"])
    assert not hasattr(llm, name)


def test_parameters_by_position_and_by_assignment(llm):
    assert SamplingParams(2, 0.5, 0.25, 1.1, 0.7).temperature == 0.7
    params = SamplingParams()
    params.n, params.min_p, params.bad_words = 2, 0.1, "no"
    assert params.bad_words == ["no"]
    assert len(llm.generate("Hello", params, use_tqdm=False)[0].outputs) == 2
    assert llm.get_tokenizer() is llm.tokenizer
