"""The engine on a GPU: graphs, bf16, neighbors, poison, and what happens when memory or the process ends."""

import random
import signal
import subprocess
import sys
import time

import needs
import pytest
import torch
from engine_models import one_prompt, write_config
from interrupts import Cut, Ride

from lessonlib.engine import LLM, SamplingParams
from lessonlib.engine.runner import ModelRunner
from lessonlib.errors import CourseError
from lessonlib.trace import Kind

pytestmark = [
    pytest.mark.gpu,
    needs.GPU.unless(torch.cuda.is_available()),
]

SHAPE = {
    "vocab_size": 4096,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "max_position_embeddings": 2048,
    "eos_token_id": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random Llama by transformers, so that both sides read the same weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    path = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    # Larger than the usual 0.02: answers that are flat would differ by chance alone.
    LlamaForCausalLM(LlamaConfig(**SHAPE, initializer_range=0.06)).save_pretrained(path)
    return path


def make(folder, **options):
    sizes = {"max_num_seqs": 32, "max_num_batched_tokens": 512, "num_blocks": 1024, "max_model_len": 512}
    return LLM(folder, skip_tokenizer_init=True, **{**sizes, **options})


def prompts(count, longest=90):
    draw = torch.Generator().manual_seed(1)
    lengths = torch.randint(4, longest, (count,), generator=draw).tolist()
    return [{"prompt_token_ids": torch.randint(3, 4096, (n,), generator=draw).tolist()} for n in lengths]


def greedy(tokens):
    return SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)


def answers(llm, asked, tokens=48):
    return [out.outputs[0].token_ids for out in llm.generate(asked, greedy(tokens), use_tqdm=False)]


def assert_equal_up_to_ties(folder, asked, found, due, tolerance=0.05):
    """Where two answers part, the two tokens' logits are closer than bf16 can tell. Returns the exact share."""
    llm = make(folder, max_num_seqs=1, num_blocks=64, enforce_eager=True)
    exact = 0
    for prompt, one, other in zip(asked, found, due, strict=True):
        if one == other:
            exact += 1
            continue
        place = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
        ids = prompt["prompt_token_ids"] + one[:place]
        with torch.inference_mode():
            logits = llm.runner.forward(one_prompt(ids, device="cuda"))[0][-1].float()
        spread = logits.max() - logits.min()
        assert abs(logits[one[place]] - logits[other[place]]) < tolerance * spread
    share = exact / len(asked)
    print(f"exact matches: {share:.0%} of {len(asked)}")
    return share


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_logits_are_as_near_to_float64_as_those_of_transformers(folder, dtype):
    from transformers import AutoModelForCausalLM

    ids = prompts(1, 400)[0]["prompt_token_ids"]

    def theirs(kind):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=kind).cuda()
        return model(torch.tensor([ids], device="cuda")).logits[0].double()

    ours = make(folder, dtype=dtype, num_blocks=64, max_num_seqs=1)
    with torch.inference_mode():
        due, other = theirs(torch.float64), theirs(getattr(torch, dtype))
        found = ours.runner.forward(one_prompt(ids, device="cuda"))[0].double()
    error, allowed = (float((each - due).norm() / due.norm()) for each in (found, other))
    print(f"{dtype}: {error:.1e}, transformers {allowed:.1e}")
    assert error < 1.25 * allowed


class BothWays(ModelRunner):
    """Computes each step eagerly as well, in the graph's own padded buffers, before the graph runs."""

    def __init__(self, *sizes, **options):
        self.compared = set()
        super().__init__(*sizes, **options)

    def load(self, inputs, shape=None):
        self.loaded = super().load(inputs, shape)
        return self.loaded

    def _graph_for(self, inputs):
        graph = super()._graph_for(inputs)
        return None if graph is None else Compared(self, graph)


class Compared:
    def __init__(self, runner, graph):
        self.runner, self.graph, self.shape = runner, graph, graph.shape

    def replay(self):
        runner, inputs = self.runner, self.runner.loaded
        before = runner._last_tokens.clone()
        eager = runner.forward(inputs)[0].clone()
        runner._last_tokens.copy_(before)
        logits, tokens = self.graph.replay()
        assert torch.equal(logits, eager)
        runner.compared.add(self.shape)
        return logits, tokens


def test_a_graphs_step_is_the_eager_step_bit_for_bit(folder):
    llm = make(folder)
    sizes = (llm.max_num_seqs, llm.max_num_batched_tokens, llm.max_model_len)
    llm.runner = BothWays(llm.model, llm.num_blocks, llm.block_size, *sizes, use_graphs=True)
    asked = prompts(40)
    mixed = [greedy(8 + 3 * place) for place in range(40)]  # every batch size on the way down
    llm.generate(asked, mixed, use_tqdm=False)
    few = [greedy(4 + 9 * place) for place in range(12)]  # a lone prompt beside every few decodes
    for place, (prompt, params) in enumerate(zip(prompts(12), few, strict=True)):
        llm.add_request(str(place), prompt, params)
        llm.step()
    while llm.has_unfinished_requests():
        llm.step()
    decodes = {shape for shape in llm.runner.compared if not shape.num_prompts}
    assert len(decodes) > 5
    assert len(llm.runner.compared - decodes) > 2


def test_overlapped_is_one_step_at_a_time(folder):
    asked = prompts(48)
    one, two = make(folder, async_scheduling=False), make(folder, async_scheduling=True)
    assert_equal_up_to_ties(folder, asked, answers(two, asked), answers(one, asked))


def test_alone_as_in_a_batch(folder):
    asked = prompts(24)
    llm = make(folder)
    together = answers(llm, asked)
    alone = [answers(llm, [prompt])[0] for prompt in asked]
    assert_equal_up_to_ties(folder, asked, together, alone)


def test_preempted_or_cached_is_undisturbed(folder):
    asked = prompts(24)
    calm = answers(make(folder), asked)
    tight = make(folder, num_blocks=60)
    assert_equal_up_to_ties(folder, asked, answers(tight, asked), calm)
    assert len(set(tight.trace.rows(Kind.PREEMPT)["request"].tolist())) >= 8
    cached = make(folder, enable_prefix_caching=True)
    for _ in range(2):
        assert_equal_up_to_ties(folder, asked, answers(cached, asked), calm)


def test_poisoned_free_blocks_are_never_read(folder):
    asked = prompts(40)
    llm = make(folder, num_blocks=100)
    due = answers(llm, asked)
    launch = llm.runner.launch

    def poisoned(plan, sampling):
        llm.runner.poison(llm.scheduler.kv_cache.pool.free_blocks())
        return launch(plan, sampling)

    llm.runner.launch = poisoned
    assert answers(llm, asked) == due


@pytest.mark.parametrize("in_flight", [1, 2])
def test_a_step_cut_short_stops_nobody(folder, in_flight):
    ride = Ride(make(folder, dtype="float32", async_scheduling=in_flight == 2, num_blocks=13), seed=1)
    rng, cuts = random.Random(2), 0
    while cuts < 120:
        ride.arrive()
        countdown = iter(range(rng.randint(1, 900), 0, -1))
        try:
            with Cut(lambda line, left=countdown: next(left, 0) == 1):
                ride.step()
        except KeyboardInterrupt:
            cuts += 1
            ride.step()
    ride.finish()
    ride.check(make(folder, dtype="float32", max_num_seqs=1, num_blocks=64))


def test_seeds_on_a_gpu_do_not_depend_on_neighbors(folder):
    llm = make(folder, dtype="float32")
    params = SamplingParams(max_tokens=16, temperature=0.7, top_k=50, seed=5, ignore_eos=True)
    asked = prompts(8)
    alone = llm.generate(asked[:1], params, use_tqdm=False)[0].outputs[0].token_ids
    others = [SamplingParams(max_tokens=12, temperature=1.2, logprobs=2, ignore_eos=True)] * 7
    crowd = llm.generate(asked, [params, *others], use_tqdm=False)
    assert crowd[0].outputs[0].token_ids == alone
    assert len(crowd[1].outputs[0].logprobs) == 12


def free_bytes():
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 0.8, "seed": 4, "n": 3},
        {"temperature": 0.7, "seed": 5, "min_p": 0.05, "top_p": 0.9, "top_k": 40},
        {"temperature": 0, "repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.2},
        {"temperature": 0, "logit_bias": {5: 8.0, 9: -4.0}, "min_tokens": 6},
        {"temperature": 0, "allowed_token_ids": [5, 6, 7, 8]},
        {"temperature": 0, "logprobs": 2, "prompt_logprobs": 3},
    ],
    ids=lambda how: "+".join(how),
)
def test_what_may_be_asked_of_a_request_is_answered_as_on_a_cpu(folder, how):
    """In float32, with others on board that ask for nothing."""
    asked = prompts(6, longest=30)
    params = [SamplingParams(max_tokens=12, ignore_eos=True, **how), greedy(12)] * 3
    found = [
        make(folder, dtype="float32", device=device).generate(asked, params, use_tqdm=False)
        for device in ("cuda", "cpu")
    ]
    for card, cpu in zip(*found, strict=True):
        assert [each.token_ids for each in card.outputs] == [each.token_ids for each in cpu.outputs]
        assert len(card.outputs) == len(cpu.outputs)
        assert (card.prompt_logprobs is None) == (cpu.prompt_logprobs is None)


def test_a_model_too_large_is_one_line_and_gives_its_memory_back(folder, tmp_path):
    huge = write_config(
        tmp_path / "huge",
        **{**SHAPE, "hidden_size": 16_384, "intermediate_size": 53_248, "num_hidden_layers": 120},
    )
    before = free_bytes()
    with pytest.raises(CourseError, match="out of memory while loading the model"):
        LLM(huge, load_format="dummy", skip_tokenizer_init=True)
    assert before - free_bytes() < 2**30
    assert len(answers(make(folder), prompts(2))) == 2


RIDE = """
import sys
from lessonlib.engine import LLM, SamplingParams
llm = LLM(sys.argv[1], skip_tokenizer_init=True, max_num_seqs=8, max_model_len=2048, num_blocks=8192)
print("riding", flush=True)
params = SamplingParams(max_tokens=2000, temperature=0, ignore_eos=True)
while True:
    llm.generate([{"prompt_token_ids": [5]}] * 8, params, use_tqdm=False)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_ends_mid_ride_leaves_the_card_free(folder, how):
    before = free_bytes()
    child = subprocess.Popen(
        [sys.executable, "-c", RIDE, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "riding\n"
    time.sleep(1)
    child.send_signal(how)
    child.wait(timeout=60)
    assert child.returncode != 0
    deadline = time.monotonic() + 20
    while before - free_bytes() > 2**28 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert before - free_bytes() < 2**28
