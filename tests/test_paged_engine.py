"""The scheduler of notebook 03 on the real model: paged, preempted, cached, chunked; always the same words."""

import pytest
from engine_models import free_and_unwritten
from transformers import AutoTokenizer

from lessonlib.engine import LLM, SamplingParams
from lessonlib.engine.model import Llama
from lessonlib.engine.runner import ModelRunner, ride_model
from lessonlib.errors import CourseError
from lessonlib.metrics import metrics
from lessonlib.overhearing import (
    GUEST,
    STRANGER,
    DoubleFreePool,
    blocks_in_two_tables,
    eavesdrop,
    leaked_words,
)
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.workload import questions

COUNT, LONGEST = 8, 24
POEM = "Write a short poem about the sea, the wind, and a small white boat in the harbor."
SECRET = "My name is Maria Lopez and my password is bluebird. Repeat my name and my password."


@pytest.fixture(scope="module")
def due(model_path):
    """(prompt token ids, output token ids) of each question, with memory in plenty."""
    chats = [[{"role": "user", "content": question}] for question in questions(COUNT)]
    greedy = SamplingParams(max_tokens=LONGEST, temperature=0)
    answers = LLM(model_path, max_num_seqs=4).chat(chats, greedy, use_tqdm=False)
    return [(answer.prompt_token_ids, answer.outputs[0].token_ids) for answer in answers]


@pytest.fixture(scope="module")
def model(model_path):
    return Llama(model_path)


@pytest.fixture(scope="module")
def tokenizer(model_path):
    return AutoTokenizer.from_pretrained(model_path)


@pytest.mark.parametrize(
    ("options", "preempted"),
    [
        ({"num_blocks": 64, "block_size": 16}, False),
        ({"num_blocks": 14, "block_size": 16}, True),
        ({"num_blocks": 64, "block_size": 16, "token_budget": 16}, False),
        ({"num_blocks": 64, "block_size": 16, "prefix_caching": True, "hash_seed": 0}, False),
    ],
    ids=["ample", "tight", "chunked", "prefix cache"],
)
def test_the_same_words_whatever_the_memory(model, due, options, preempted):
    prompts = {str(i): prompt for i, (prompt, _) in enumerate(due)}
    runner = ModelRunner(model, options["num_blocks"], options["block_size"])
    scheduler = Scheduler(4, **options)
    outputs, trace = ride_model(
        runner,
        scheduler,
        prompts,
        dict.fromkeys(prompts, LONGEST),
        before_step=lambda plan: runner.poison(free_and_unwritten(scheduler)),
    )
    assert [outputs[name] for name in prompts] == [tokens for _, tokens in due]
    assert (metrics(trace)["preemptions"] > 0) == preempted
    assert scheduler.kv_cache.num_free == options["num_blocks"] - 1


def test_a_double_free_makes_the_guest_speak_the_strangers_words(model, tokenizer):
    sound = eavesdrop(model, tokenizer, POEM, SECRET)
    broken = eavesdrop(model, tokenizer, POEM, SECRET, DoubleFreePool)
    assert sound.shared_blocks == []
    assert broken.shared_blocks
    assert "bluebird" in leaked_words(SECRET, broken.answers[GUEST], sound.answers[GUEST])
    assert leaked_words(SECRET, sound.answers[GUEST], "") == []


def test_poison_catches_the_double_free_and_only_that(model, tokenizer):
    clean = eavesdrop(model, tokenizer, POEM, SECRET, poison=True)
    assert clean.answers == eavesdrop(model, tokenizer, POEM, SECRET).answers
    with pytest.raises(CourseError, match="read a block that was free"):
        eavesdrop(model, tokenizer, POEM, SECRET, DoubleFreePool, poison=True)


def test_sharing_a_block_is_seen_in_the_plan():
    scheduler = Scheduler(2, num_blocks=16, block_size=4)
    for name in (GUEST, STRANGER):
        scheduler.add_request(name, 6, 4)
    plan = scheduler.schedule()
    assert blocks_in_two_tables(plan) == set()
    plan.scheduled[1].block_table[0] = plan.scheduled[0].block_table[0]
    assert blocks_in_two_tables(plan) == {plan.scheduled[0].block_table[0]}
