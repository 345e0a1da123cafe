"""The engine's parts on tiny random models: operators, graphs of none, the sampler's odds, and a long soak."""

import random

import needs
import numpy as np
import pytest
import torch
from engine_models import free_and_unwritten, one_prompt, write_config

from kernels import reference
from kernels.reference import draw_key, uniform
from lessonlib.engine import LLM, SamplingParams
from lessonlib.engine.chat import ChatEngine
from lessonlib.engine.cpu import loops
from lessonlib.engine.inputs import StepShape
from lessonlib.engine.model import Llama
from lessonlib.engine.ops import choose_ops
from lessonlib.engine.runner import ModelRunner, graph_shapes, graph_sizes
from lessonlib.engine.sampler import Draw, sample
from lessonlib.errors import CourseError
from lessonlib.scheduling.plugged import plug
from lessonlib.scheduling.scheduler import Scheduler

pytestmark = pytest.mark.usefixtures("one_thread")

GREEDY = SamplingParams(max_tokens=10, temperature=0, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("tiny"))


def make(folder, **options):
    sizes = {"max_num_seqs": 4, "max_num_batched_tokens": 32, "num_blocks": 40, "load_format": "dummy"}
    return LLM(folder, skip_tokenizer_init=True, device="cpu", **{**sizes, **options})


def prompts(count, seed=0, longest=30):
    rng = random.Random(seed)
    return [
        {"prompt_token_ids": [rng.randrange(3, 256) for _ in range(rng.randint(1, longest))]}
        for _ in range(count)
    ]


def answers(llm, asked, params=GREEDY):
    return [out.outputs[0].token_ids for out in llm.generate(asked, params, use_tqdm=False)]


# ----- operators -----


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_native_operators_give_the_references_logits(folder, dtype):
    ids = prompts(1, longest=60)[0]["prompt_token_ids"]
    found = {}
    for name in ("reference", "native"):
        model = Llama(folder, dtype, ops=choose_ops(name, torch.device("cpu")), load_format="dummy")
        with torch.inference_mode():
            found[name] = ModelRunner(model, 8, 16).forward(one_prompt(ids))[0].double()
    error = (found["native"] - found["reference"]).norm() / found["reference"].norm()
    assert error < (1e-5 if dtype is torch.float32 else 2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_loops_give_the_references_bits(dtype):
    torch.manual_seed(0)
    x, residual, weight = (torch.randn(shape).to(dtype) for shape in ((5, 96), (5, 96), (96,)))
    mine, due = residual.clone(), residual.clone()
    close = {"rtol": 0, "atol": 0} if dtype is torch.bfloat16 else {}
    torch.testing.assert_close(
        loops.rms_norm(x, weight, eps=1e-5), reference.rms_norm(x, weight, eps=1e-5), **close
    )
    normed = loops.rms_norm(x, weight, eps=1e-5, residual=mine)
    torch.testing.assert_close(normed, reference.rms_norm(x, weight, eps=1e-5, residual=due), **close)
    torch.testing.assert_close(mine, due, **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_loops_rotate_and_store_like_the_reference(dtype):
    torch.manual_seed(0)
    heads, cos_sin = torch.randn(5, 4 + 2 + 2, 16).to(dtype), torch.randn(100, 16)
    positions, slots = (
        torch.tensor(each, dtype=torch.int32) for each in ([0, 1, 99, 3, 7], [31, 0, 5, 17, 16])
    )
    mine, due = torch.full((2, 2, 16, 2, 2, 16), torch.nan).to(dtype)
    queries, keys, values = heads.clone().split([4, 2, 2], dim=1)
    reference.rotary_write_kv(queries, keys, values, positions, cos_sin, *due.unbind(2), slots)
    indices = (cos_sin.numpy(), positions.numpy(), slots.numpy())
    loops.rotate_and_store(loops.array(heads), *indices, loops.array(mine.flatten(0, 1)))
    close = {"rtol": 0, "atol": 0} if dtype is torch.bfloat16 else {}
    torch.testing.assert_close(heads[:, :4], queries, **close)
    torch.testing.assert_close(mine, due, equal_nan=True, **close)


def test_one_engine_on_every_operator(folder, tier):
    if tier == "gpu":
        needs.INTERPRETER.skip()  # the compiled kernels have tests of their own: tests/test_engine_gpu.py
    asked = prompts(3, longest=6)
    params = SamplingParams(max_tokens=3, temperature=0, ignore_eos=True)
    due = answers(make(folder, attention="reference"), asked, params)
    assert answers(make(folder, attention="native"), asked, params) == due
    assert answers(make(folder, attention="triton", max_num_seqs=2), asked, params) == due


def test_an_attention_of_ones_own(folder):
    calls = []

    def mine(*tensors, **options):
        calls.append(options["num_decodes"])
        return reference.paged_attention(*tensors, **options)

    asked = prompts(3)
    assert answers(make(folder, attention=mine), asked) == answers(make(folder), asked)
    assert len(calls) > 10


def test_sizes_that_get_a_graph():
    assert graph_sizes(1) == [1]
    assert graph_sizes(12) == [1, 2, 4, 8, 12]
    assert graph_sizes(32) == [1, 2, 4, 8, 16, 24, 32]


def test_shapes_that_get_a_graph():
    found = graph_shapes(130)
    assert found == sorted(found, key=lambda shape: shape.num_tokens)
    assert [shape.num_decodes for shape in found if not shape.num_prompts] == graph_sizes(130)
    assert {shape.num_decodes for shape in found if shape.num_prompts} == {8, 64, 128, 130}
    assert {shape.num_decodes for shape in graph_shapes(1)} == {1}


def test_a_padded_step_gives_the_same_logits_and_leaves_memory_alone(folder):
    llm = make(folder, attention="reference", max_num_batched_tokens=64)
    seen = []
    runner = llm.runner
    forward = runner.forward

    def both(inputs):
        shape = StepShape(inputs.num_decodes + 3, inputs.num_seqs - inputs.num_decodes + 2, 70)
        assert shape.holds(inputs)
        before, cache = runner._last_tokens.clone(), runner.kv_tensor.clone()
        padded = forward(inputs.padded(shape, runner._spare_slot))[0]
        stored = runner.kv_tensor.clone()
        runner._last_tokens.copy_(before)
        runner.kv_tensor.copy_(cache)
        logits, tokens = forward(inputs)
        torch.testing.assert_close(padded[: len(logits)], logits)
        torch.testing.assert_close(stored, runner.kv_tensor)
        seen.append((inputs.num_decodes, inputs.num_seqs))
        return logits, tokens

    runner.forward = both
    answers(llm, prompts(9))
    assert any(0 < decodes < rows for decodes, rows in seen)  # mixed steps among them
    assert not StepShape(8).holds(one_prompt([1, 2, 3]))


# ----- odds -----


def test_draws_follow_the_odds():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).expand(4000, 4)
    draws = [Draw(SamplingParams(temperature=0.5), seed, 3) for seed in range(4000)]
    share = np.bincount(sample(logits, draws).numpy(), minlength=4) / 4000
    due = (logits[0] / 0.5).softmax(-1).numpy()
    assert np.abs(share - due).max() < 4 * np.sqrt(0.25 / 4000)


@pytest.mark.parametrize(
    ("params", "kept"),
    [({"top_k": 1}, {2}), ({"top_k": 2}, {1, 2}), ({"top_p": 0.5}, {2}), ({"top_p": 0.85}, {1, 2})],
)
def test_cuts_leave_the_likeliest(params, kept):
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).expand(300, 4)  # 9%, 24%, 64%, 3%
    draws = [Draw(SamplingParams(**params), seed, 0) for seed in range(300)]
    assert set(sample(logits, draws).tolist()) == kept


def test_greedy_and_drawn_rows_in_one_batch():
    logits = torch.randn(3, 50)
    draws = [Draw(SamplingParams(temperature=temperature), 0, 0) for temperature in (0, 1, 0)]
    tokens = sample(logits, draws)
    assert tokens[[0, 2]].equal(logits.argmax(-1)[[0, 2]])


def test_noise_is_even_and_differs_by_seed_and_place():
    seeds = torch.arange(50)
    noise = uniform(draw_key(seeds, torch.zeros_like(seeds)), 2000)
    assert noise.min() > 0
    assert noise.max() < 1
    assert abs(noise.mean() - 0.5) < 0.005
    counts = torch.histc(noise, 10, 0, 1)
    assert (counts - 10_000).abs().max() < 400  # four standard deviations
    assert abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 0.1
    later = uniform(draw_key(seeds, torch.ones_like(seeds)), 2000)
    assert (noise == later).float().mean() < 0.001


# ----- seats for students -----


def test_a_function_that_is_not_there_leaves_its_decision_to_the_course(folder):
    parts = plug(object())
    assert parts.in_use == ()
    asked = prompts(6)
    mine = make(folder, scheduler_cls=parts.scheduler_cls, kv_cache_cls=parts.kv_cache_cls, num_blocks=14)
    course = make(folder, num_blocks=14)
    assert answers(mine, asked) == answers(course, asked)
    assert mine.trace.same_ride(course.trace)


def test_an_engine_that_is_spoken_to(model_path):
    llm = LLM(model_path, max_num_seqs=2, num_blocks=32, max_model_len=128)
    engine = ChatEngine(llm, SamplingParams(max_tokens=12, temperature=0))
    engine.add_request("a", "What is the capital of France?")
    engine.add_request("b", "Name the planets.")
    engine.step()
    engine.abort("b")
    last = {}
    while engine.has_unfinished_requests():
        last |= {out.request_id: out for out in engine.step()}
    assert last["a"].outputs[0].text == "The capital of France is Paris."
    assert engine.trace.num_requests == 2


def test_an_id_that_is_used_again_gets_no_token_of_the_step_in_flight(folder):
    llm = make(folder, async_scheduling=True)
    first, second = prompts(2)
    llm.add_request("same", first, GREEDY)
    llm.step()
    llm.abort("same")
    llm.add_request("same", second, GREEDY)
    told = []
    while llm.has_unfinished_requests():
        told += [out.outputs[0].token_ids for out in llm.step() if out.finished]
    assert told == answers(make(folder), [second])


# ----- a long time -----


def soak(folder, requests, **options):
    """Random arrivals, lengths, aborts and forks of seeds in tiny memory, free blocks full of NaN; words by id."""
    rng = random.Random(0)
    llm = make(folder, num_blocks=12, max_num_seqs=6, **options)
    launch = llm.runner.launch

    def poisoned(plan, sampling):
        llm.runner.poison(free_and_unwritten(llm.scheduler))
        return launch(plan, sampling)

    llm.runner.launch = poisoned
    asked, told, aborted = {}, {}, set()
    while len(asked) < requests or llm.has_unfinished_requests():
        for _ in range(rng.randint(0, 2) if len(asked) < requests else 0):
            name = str(len(asked))
            params = SamplingParams(
                max_tokens=rng.randint(1, 24), temperature=rng.choice([0, 0.8]), seed=len(asked)
            )
            asked[name] = prompts(1, seed=len(asked), longest=50)[0], params
            llm.add_request(name, *asked[name])
        for out in llm.step():
            if out.finished:
                told[out.request_id] = out.outputs[0].token_ids
        if rng.random() < 0.05 and llm.scheduler.requests:
            name = rng.choice(list(llm.scheduler.requests))
            llm.abort(name)
            aborted.add(name)
    assert llm.scheduler.kv_cache.num_free == llm.num_blocks - 1
    assert told.keys() | aborted == asked.keys()
    return asked, told, llm


@pytest.mark.parametrize("options", [{}, {"async_scheduling": True}, {"enable_prefix_caching": True}])
def test_a_short_soak(folder, options):
    check_soak(folder, 60, options)


@pytest.mark.prove
@pytest.mark.parametrize("options", [{}, {"async_scheduling": True, "enable_prefix_caching": True}])
def test_a_soak_of_two_thousand(folder, options):
    check_soak(folder, 2000, options)


def check_soak(folder, requests, options):
    asked, told, llm = soak(folder, requests, **options)
    assert llm.trace.header.policy == "continuous"
    alone = make(folder, max_num_seqs=1)
    rng = random.Random(1)
    for name in rng.sample(sorted(told), min(100, len(told))):
        prompt, params = asked[name]
        assert told[name] == answers(alone, [prompt], params)[0], name


# ----- bad input -----


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_blocks": 1}, "pool of 1 blocks"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization 1.5"),
        ({"max_model_len": 1}, "model length of 1"),
        ({"block_size": 0}, "block_size 0: give at least 1"),
    ],
)
def test_sizes_that_nothing_could_run_with(folder, options, words):
    with pytest.raises(CourseError, match=words):
        make(folder, **options)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attention_bias": True}, "attention_bias True"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"quantization_config": {"bits": 4}}, "is quantized"),
        ({"model_type": "mamba"}, "'mamba' model"),
    ],
)
def test_models_that_would_be_wrong_here_are_refused(tmp_path, changes, words):
    with pytest.raises(CourseError, match=words):
        make(write_config(tmp_path / "model", **changes))


def test_a_scheduler_of_ones_own_is_in_the_seat(folder):
    class Mine(Scheduler):
        pass

    assert isinstance(make(folder, scheduler_cls=Mine).scheduler, Mine)
