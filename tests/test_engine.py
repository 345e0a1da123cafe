"""The engine on the real model: Hugging Face's own tokens, however the riders are scheduled."""

import signal
from itertools import pairwise

import needs
import pytest
import torch
from engine_models import conversations

from lessonlib.engine import LLM, SamplingParams
from lessonlib.errors import CourseError
from lessonlib.metrics import metrics
from lessonlib.scheduling.plugged import plug
from lessonlib.trace import Kind
from solutions import ex03

# More chats than slots, so that each way of scheduling waits, boards late and throws out.
CHATS, LONGEST = 12, 24
GREEDY = SamplingParams(max_tokens=LONGEST, temperature=0)
PARTS = plug(ex03)

RIDES = {
    "static": {"policy": "static"},
    "continuous": {"policy": "continuous"},
    "budget 16": {"max_num_batched_tokens": 16},
    "budget 64": {"max_num_batched_tokens": 64},
    "budget 512": {"max_num_batched_tokens": 512},
    "tight": {"num_blocks": 13},
    "two in flight": {"async_scheduling": True},
    "a student's": {
        "scheduler_cls": PARTS.scheduler_cls,
        "kv_cache_cls": PARTS.kv_cache_cls,
        "num_blocks": 13,
    },
}


@pytest.fixture(scope="session")
def make_llm(model_path):
    """LLM(**options) on the real model; the weights are read once."""
    loaded = LLM(model_path, max_num_seqs=1, num_blocks=64).model

    def make(**options):
        return LLM(loaded, **{"max_num_seqs": 8, "max_model_len": 512, "num_blocks": 400, **options})

    return make


@pytest.fixture(scope="module", params=[CHATS, pytest.param(64, marks=pytest.mark.prove)])
def due(model_path, request):
    """(prompt token ids, output token ids) of chats by Hugging Face `generate`, in left-padded batches."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model_path, padding_side="left")
    prompts = [
        tokenizer(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))[
            "input_ids"
        ]
        for chat in conversations(request.param)
    ]
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    outputs = {}
    for start in range(0, len(order), 16):
        places = order[start : start + 16]
        batch = tokenizer.pad({"input_ids": [prompts[place] for place in places]}, return_tensors="pt")
        with torch.inference_mode():
            rows = model.generate(**batch, max_new_tokens=LONGEST, do_sample=False)
        for place, row in zip(places, rows[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
            outputs[place] = until_end(row, model.config.eos_token_id)
    return [(prompts[place], outputs[place]) for place in range(len(prompts))]


def until_end(row, eos):
    return row[: row.index(eos) + 1] if eos in row else row


def answer(llm, due):
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt, _ in due], GREEDY, use_tqdm=False)
    return [output.outputs[0].token_ids for output in outputs]


# ----- parity -----


@pytest.mark.parametrize("name", RIDES)
def test_the_tokens_of_hugging_face(make_llm, due, name):
    llm = make_llm(**RIDES[name])
    assert answer(llm, due) == [tokens for _, tokens in due]
    thrown_out = set(llm.trace.rows(Kind.PREEMPT)["request"].tolist())
    if name in ("tight", "a student's"):
        assert len(thrown_out) >= len(due) / 4
    else:
        assert not thrown_out
    assert llm.scheduler.kv_cache.num_free == llm.num_blocks - 1


def test_prefix_caching_cold_and_warm(make_llm, due):
    llm = make_llm(enable_prefix_caching=True, num_blocks=1200)
    for least in (20, 50):  # the template is shared from the start; the second time so is all the rest
        assert answer(llm, due) == [tokens for _, tokens in due]
        cached = metrics(llm.trace)["cached_tokens"]
        assert cached > least / 100 * sum(len(prompt) for prompt, _ in due)


def test_the_trace_tells_what_happened(make_llm, due):
    few = due[:6]
    traces = {}
    for policy in ("static", "continuous"):
        llm = make_llm(policy=policy, max_num_seqs=2)
        tokens = answer(llm, few)
        trace = traces[policy] = llm.trace
        assert trace.output_tokens().tolist() == [len(each) for each in tokens]
        assert trace.rows(Kind.PREFILL)["tokens"].tolist() == [len(prompt) for prompt, _ in few]
        assert trace.steps["running"].max() <= 2
        assert trace.header.policy == policy
        assert trace.header.clock == "seconds"
        starts, durations = trace.steps["start"], trace.steps["duration"]
        assert (durations > 0).all()
        assert (starts[1:] >= (starts + durations)[:-1] - 1e-9).all()
    assert traces["continuous"].num_steps < traces["static"].num_steps


@pytest.mark.prove
def test_the_tokens_of_hugging_face_one_prompt_at_a_time(model_path, make_llm, due):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    found = answer(make_llm(), due)
    for (prompt, _), tokens in zip(due, found, strict=True):
        ids = torch.tensor([prompt])
        whole = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=LONGEST, do_sample=False
        )
        assert tokens == whole[0, len(prompt) :].tolist()


# ----- stopping -----


@pytest.fixture(scope="module")
def llm(make_llm):
    return make_llm(max_num_seqs=4)


def say(llm, prompt, **params):
    return llm.generate([prompt], SamplingParams(**{"temperature": 0, **params}), use_tqdm=False)[0].outputs[
        0
    ]


def chat_prompt(llm, question):
    return llm.chat_prompt([{"role": "user", "content": question}])


def test_an_answer_stops_by_itself_and_says_so(llm):
    paris = say(llm, chat_prompt(llm, "What is the capital of France?"), max_tokens=40)
    assert (paris.text, paris.finish_reason) == ("The capital of France is Paris.", "stop")
    assert paris.token_ids[-1] in llm.model.config.eos_token_ids
    cut = say(llm, chat_prompt(llm, "What is the capital of France?"), max_tokens=3)
    assert (cut.text, cut.finish_reason) == ("The capital of", "length")
    longer = say(llm, chat_prompt(llm, "What is the capital of France?"), max_tokens=20, ignore_eos=True)
    assert len(longer.token_ids) == 20


def test_stop_strings_and_tokens(llm):
    prompt = chat_prompt(llm, "What is the capital of France?")
    stopped = say(llm, prompt, max_tokens=40, stop=["Paris", "France is"])
    assert (stopped.text, stopped.finish_reason, stopped.stop_reason) == (
        "The capital of ",
        "stop",
        "France is",
    )
    token = llm.tokenizer(" France", add_special_tokens=False)["input_ids"][0]
    stopped = say(llm, prompt, max_tokens=40, stop_token_ids=[token])
    assert (stopped.text, stopped.stop_reason) == ("The capital of", token)
    assert stopped.token_ids[-1] == token


def test_logprobs_are_the_models(llm, model_path):
    from transformers import AutoModelForCausalLM

    prompt = chat_prompt(llm, "Name the planets.")
    found = say(llm, prompt, max_tokens=6, logprobs=3)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    ids = torch.tensor([prompt["prompt_token_ids"] + found.token_ids])
    with torch.inference_mode():
        logprobs = model(ids).logits[0].log_softmax(-1)[len(prompt["prompt_token_ids"]) - 1 : -1]
    assert found.cumulative_logprob == pytest.approx(float(logprobs.max(-1).values.sum()), abs=1e-3)
    for row, told in zip(logprobs, found.logprobs, strict=True):
        best = row.topk(3)
        assert list(told) == best.indices.tolist()
        assert [each.logprob for each in told.values()] == pytest.approx(best.values.tolist(), abs=1e-3)
        assert [each.rank for each in told.values()] == [1, 2, 3]
        assert told[int(best.indices[0])].decoded_token == llm.tokenizer.decode([int(best.indices[0])])


# ----- sampling -----


def test_a_seed_gives_the_same_words_whoever_rides_beside(llm, due):
    params = SamplingParams(max_tokens=16, temperature=0.8, top_p=0.95, seed=7)
    prompt = chat_prompt(llm, "Tell me a story.")
    alone = llm.generate([prompt], params, use_tqdm=False)[0].outputs[0].token_ids
    others = [{"prompt_token_ids": ids} for ids, _ in due[:5]]
    mixed = [SamplingParams(max_tokens=9, temperature=1.5)] * 5 + [params]
    crowd = llm.generate([*others, prompt], mixed, use_tqdm=False)
    assert crowd[-1].outputs[0].token_ids == alone
    other = llm.generate([prompt], SamplingParams(max_tokens=16, temperature=0.8, seed=8), use_tqdm=False)
    assert other[0].outputs[0].token_ids != alone


def test_a_preempted_rider_is_told_the_same_words(make_llm, due):
    params = [
        SamplingParams(max_tokens=24, temperature=0.9, seed=place, ignore_eos=True) for place in range(8)
    ]
    prompts = [{"prompt_token_ids": ids} for ids, _ in due[:8]]
    roomy, tight = make_llm(max_num_seqs=8), make_llm(max_num_seqs=8, num_blocks=22)
    expected = [each.outputs[0].token_ids for each in roomy.generate(prompts, params, use_tqdm=False)]
    found = [each.outputs[0].token_ids for each in tight.generate(prompts, params, use_tqdm=False)]
    assert len(tight.trace.rows(Kind.PREEMPT)["request"])
    assert found == expected


# ----- step by step -----


def test_boarding_and_leaving_while_others_ride(llm):
    llm.start_trace()
    long = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True)
    llm.add_request("first", "Once upon a time", long)
    assert [out.request_id for out in llm.step()] == ["first"]
    llm.add_request("second", "The sea is", long)
    llm.add_request("third", "Hello", long)
    told = llm.step()
    assert {out.request_id for out in told} == {"first", "second", "third"}
    left = llm.abort("second")
    assert (left.outputs[0].finish_reason, len(left.outputs[0].token_ids)) == ("abort", 1)
    with pytest.raises(CourseError, match="no request 'second'"):
        llm.abort("second")
    texts = []
    while llm.has_unfinished_requests():
        texts += [out.outputs[0].text for out in llm.step() if out.request_id == "first"]
    assert all(after.startswith(before) for before, after in pairwise(texts))
    assert llm.step() == []
    trace = llm.trace
    assert trace.rows(Kind.ABORT)["request"].tolist() == [1]
    assert trace.rows(Kind.BOARD)["step"].tolist() == [0, 1, 1]
    assert llm.scheduler.kv_cache.num_free == llm.num_blocks - 1


def test_a_refused_request_leaves_the_others_on_board(llm):
    llm.start_trace()
    llm.add_request("first", "Once upon a time", SamplingParams(max_tokens=4, temperature=0, ignore_eos=True))
    llm.step()
    with pytest.raises(CourseError, match="is empty"):
        llm.add_request("second", {"prompt_token_ids": []})
    with pytest.raises(CourseError, match="already here"):
        llm.add_request("first", "again")
    for new_ride in (lambda: llm.generate(["Hello"]), llm.start_trace):
        with pytest.raises(CourseError, match="requests are running"):
            new_ride()
    finished = [out for _ in range(3) for out in llm.step() if out.finished]
    assert [out.request_id for out in finished] == ["first"]


def test_an_interruption_empties_the_car_and_the_next_call_works(llm):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            llm.generate(
                ["Once upon a time"] * 4, SamplingParams(max_tokens=480, ignore_eos=True), use_tqdm=False
            )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not llm.has_unfinished_requests()
    assert llm.scheduler.kv_cache.num_free == llm.num_blocks - 1
    assert say(llm, chat_prompt(llm, "What is the capital of France?"), max_tokens=12).text.endswith("Paris.")


# ----- bad input -----


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda llm: llm.generate([]), "no prompts"),
        (lambda llm: llm.generate(5), "prompts 5: give a text"),
        (lambda llm: llm.generate([""]), "prompt 0 is empty"),
        (lambda llm: llm.generate([{"text": "hello"}]), "prompt 0 has no 'text'"),
        (lambda llm: llm.generate([None]), "prompt 0 has neither"),
        (lambda llm: llm.generate([{"prompt_token_ids": [5] * 512}]), "context holds 512"),
        (lambda llm: llm.generate([{"prompt_token_ids": [99_999]}]), "token id 99999"),
        (lambda llm: llm.generate(["a"], SamplingParams(stop_token_ids=[-4])), "token id -4"),
        (lambda llm: llm.generate(["a"], [SamplingParams()] * 2), "2 sampling params for 1"),
        (lambda llm: LLM(llm.model, policy="magic"), "unknown policy"),
        (lambda llm: LLM(llm.model, max_num_seqs=0), "max_num_seqs 0"),
        (lambda llm: LLM("smollm2", device="tpu"), "device 'tpu'"),
        (lambda llm: LLM("smollm2", dtype="int8"), "dtype 'int8'"),
        (lambda llm: LLM("smollm2", attention="magic"), "attention 'magic'"),
        (lambda llm: LLM("smollm2", load_format="gguf"), "load_format 'gguf'"),
        (lambda llm: LLM(llm.model, num_blocks=4, max_model_len=256).generate(["a " * 90]), "needs"),
    ],
)
def test_bad_input_is_named(llm, call, words):
    with pytest.raises(CourseError, match=words):
        call(llm)
    assert not llm.has_unfinished_requests()


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"max_tokens": 0}, "max_tokens 0"),
        ({"temperature": -0.1}, "temperature -0.1"),
        ({"top_p": 0}, "top_p 0"),
        ({"top_p": 1.1}, "top_p 1.1"),
        ({"top_k": -2}, "top_k -2"),
        ({"logprobs": 21}, "logprobs 21"),
        ({"stop": ""}, "empty stop string"),
    ],
)
def test_sampling_out_of_range_is_named(params, words):
    with pytest.raises(CourseError, match=words):
        SamplingParams(**params)


@needs.NO_GPU.unless(not torch.cuda.is_available())
def test_cuda_where_there_is_none():
    with pytest.raises(CourseError, match="sees no NVIDIA GPU"):
        LLM("smollm2", device="cuda")
