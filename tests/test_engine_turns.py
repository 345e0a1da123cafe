"""Closing, forking, threads, a live ride beside `generate`: each has one answer."""

import asyncio
import os
import threading
import time

import pytest
from engine_models import write_config

from lessonlib.engine import LLM, SamplingParams
from lessonlib.errors import CourseError
from lessonlib.scheduling.policy import Policy

pytestmark = pytest.mark.usefixtures("one_thread")

PARAMS = SamplingParams(max_tokens=8, temperature=0.8, seed=1, ignore_eos=True)
PROMPT = [5, 6, 7]


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """LLM(**options) on a tiny model, its weights drawn once."""
    folder = write_config(tmp_path_factory.mktemp("tiny"))
    sizes = {"max_num_seqs": 4, "num_blocks": 40, "load_format": "dummy", "skip_tokenizer_init": True}
    model = LLM(folder, device="cpu", **sizes).model
    return lambda **options: LLM(model, **{**sizes, **options})


def say(llm, prompt=PROMPT, params=PARAMS):
    return llm.generate(prompt, params, use_tqdm=False)[0].outputs[0].token_ids


CALLS = {
    "generate": lambda llm: llm.generate(PROMPT),
    "add_request": lambda llm: llm.add_request("it", PROMPT),
    "step": lambda llm: llm.step(),
    "abort": lambda llm: llm.abort("it"),
    "start_trace": lambda llm: llm.start_trace(),
    "reset_prefix_cache": lambda llm: llm.reset_prefix_cache(),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_closed_engine_says_so(make, name):
    llm, other = make(), make()
    say(llm)
    llm.close()
    llm.close()
    with pytest.raises(CourseError, match="this LLM is closed: make a new one"):
        CALLS[name](llm)
    assert not llm.has_unfinished_requests()
    assert llm.trace.tokens == 8
    assert len(say(other)) == 8  # on the same model


def test_it_is_closed_behind_with(make):
    with make() as llm:
        llm.add_request("it", PROMPT, PARAMS)
        llm.step()
    with pytest.raises(CourseError, match="is closed"):
        llm.step()
    assert not llm.has_unfinished_requests()


@pytest.mark.parametrize("use", [say, lambda llm: llm.step(), lambda llm: LLM(llm.model, num_blocks=8)])
def test_a_forked_child_is_told_at_once(make, use):
    llm = make()
    say(llm)
    child = os.fork()
    if not child:
        try:
            use(llm)
        except CourseError as error:
            os._exit(0 if "was forked from" in str(error) and "spawn" in str(error) else 2)
        finally:
            os._exit(1)
    for _ in range(200):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        raise AssertionError("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 0
    assert len(say(llm)) == 8


def test_four_threads_take_turns(make):
    llm, alone = make(), make()
    found, errors = {}, []

    def ask(number):
        try:
            for _ in range(3):
                found.setdefault(number, []).append(say(llm, [5, number, 7]))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10, 14)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert found == {number: [say(alone, [5, number, 7])] * 3 for number in range(10, 14)}


def test_a_live_ride_is_not_disturbed_by_generate(make):
    llm, alone, refused = make(), make(), []

    async def live():
        llm.add_request("it", PROMPT, PARAMS)
        last = None
        while llm.has_unfinished_requests():
            for output in llm.step():
                last = output
            if llm.has_unfinished_requests():
                with pytest.raises(CourseError, match="requests are running: finish them with step or abort"):
                    say(llm)
                refused.append(last)
            await asyncio.sleep(0)
        return last

    assert asyncio.run(live()).outputs[0].token_ids == say(alone)
    assert len(refused) == 7
    assert len(say(llm)) == 8


def test_a_call_inside_a_step_is_refused_and_the_ride_goes_on(make):
    class Asks(Policy):
        name = "asks"
        refusals = ()

        def may_admit(self, scheduler):
            for call in (say, lambda llm: llm.step(), lambda llm: llm.has_unfinished_requests()):
                with pytest.raises(CourseError, match="was called inside a step"):
                    call(llm)
                self.refusals += (1,)
            return True

    policy = Asks()
    llm = make(policy=policy)
    llm.add_request("it", PROMPT, PARAMS)
    last = [output for _ in range(8) for output in llm.step()][-1]
    assert policy.refusals
    assert last.outputs[0].token_ids == say(make())
