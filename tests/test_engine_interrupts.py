"""A step that is cut short, wherever that is: nothing of it stays, and everyone's answer is as it would have been."""

import contextlib
import random
import signal
from pathlib import Path

import pytest
from engine_models import write_config, write_tokenizer
from interrupts import Cut, Ride, request

from lessonlib.engine import LLM
from lessonlib.scheduling.policy import Policy

pytestmark = pytest.mark.usefixtures("one_thread")

IN_FLIGHT = [pytest.param({}, id="one"), pytest.param({"async_scheduling": True}, id="two in flight")]
TIGHT = {"max_num_seqs": 4, "max_num_batched_tokens": 24, "num_blocks": 13, "enable_prefix_caching": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tokenizer(write_config(tmp_path_factory.mktemp("tiny")))


def make(folder, **options):
    sizes = {"device": "cpu", "load_format": "dummy"}
    return LLM(folder, **{**sizes, **TIGHT, **options})


def lines_of_a_ride(folder, options):
    """Every line that the steps of a ride run."""
    ride, cut = Ride(make(folder, **options), seed=0), Cut(lambda line: False)
    for _ in range(60):
        ride.arrive()
        with cut:
            ride.llm.step()
    return cut.lines


@pytest.mark.parametrize("options", IN_FLIGHT)
def test_a_step_that_raises_at_any_third_line_stops_nobody(folder, options):
    raise_at_lines(folder, options, every=3)


@pytest.mark.prove
@pytest.mark.parametrize("options", IN_FLIGHT)
def test_a_step_that_raises_at_any_line_stops_nobody(folder, options):
    raise_at_lines(folder, options, every=1)


def raise_at_lines(folder, options, every):
    """One ride with an error at each line that its steps run, from the scheduler to the report."""
    lines = lines_of_a_ride(folder, options)
    parts = {"scheduler", "policy", "kv_cache", "block_pool", "plan", "inputs", "runner", "model", "sampler"}
    parts |= {"llm", "logits", "logprobs", "answers", "text", "trace"}  # `text` detokenizes
    assert parts <= {Path(file).stem for file, _ in lines}
    assert len(lines) > 400
    left, rng = set(sorted(lines)[::every]), random.Random(1)
    ride, quiet = Ride(make(folder, **options), seed=1), 0
    while left and quiet < 60:
        ride.arrive()
        chosen = set(rng.sample(sorted(left), -(-len(left) // 4)))
        cut = Cut(chosen.__contains__, rng.choice([KeyboardInterrupt, RuntimeError, MemoryError]))
        quiet += 1
        try:
            with cut:
                ride.step()
        except cut.error:
            left.discard(cut.raised)
            quiet = 0
            ride.step()  # what comes after goes on
    assert len(left) < 10, left  # lines that only some rides run
    ride.finish()
    ride.check(make(folder, max_num_seqs=1))


@pytest.mark.parametrize("options", IN_FLIGHT)
def test_what_mends_a_step_may_be_cut_short_too(folder, options):
    ride, rng = Ride(make(folder, **options), seed=2), random.Random(3)
    cuts = 0
    while cuts < 150:
        ride.arrive()
        countdown = iter(range(rng.randint(1, 400), 0, -1))
        first = Cut(lambda line, left=countdown: next(left, 0) == 1)
        again = iter(range(rng.randint(1, 60), 0, -1))
        second = Cut(lambda line, left=again: next(left, 0) == 1)
        for cut in (first, second):
            try:
                with cut:
                    ride.step()
            except KeyboardInterrupt:
                cuts += 1
        ride.step()
    ride.finish()
    ride.check(make(folder, max_num_seqs=1))


@pytest.mark.parametrize("options", IN_FLIGHT)
def test_a_hundred_and_twenty_signals(folder, options):
    """Ctrl-C as it comes, at any moment of a step: 120 of 120 rides go on."""
    ride, rng, interrupted = Ride(make(folder, **options), seed=4), random.Random(5), 0

    def interrupt(_, frame):
        while frame is not None:
            if frame.f_code is LLM.step.__code__:
                raise KeyboardInterrupt
            frame = frame.f_back
        signal.setitimer(signal.ITIMER_REAL, 1e-4)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        while interrupted < 120:
            ride.arrive()
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 4e-3))
            try:
                ride.step()
            except KeyboardInterrupt:
                interrupted += 1
                signal.setitimer(signal.ITIMER_REAL, 0)
                ride.step()
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    ride.finish()
    ride.check(make(folder, max_num_seqs=1))


@pytest.mark.parametrize("options", IN_FLIGHT)
@pytest.mark.parametrize(
    "hook", ["choose", "may_admit", "reserve", "chunk", "victim", "pauses_decode", "watermark"]
)
def test_a_policy_that_raises_once(folder, options, hook):
    class Moody(Policy):
        calls, is_riding = 0, False  # `reserve` is asked as a request comes, too

    def moody(self, *args):
        Moody.calls += Moody.is_riding
        if Moody.is_riding and Moody.calls == 5:
            raise RuntimeError("not today")
        return getattr(Policy, hook)(self, *args)

    setattr(Moody, hook, moody)
    ride, notes = Ride(make(folder, policy=Moody(), num_blocks=8, **options), seed=6), []
    for _ in range(80):
        ride.arrive()
        Moody.is_riding = True
        try:
            ride.step()
        except RuntimeError as error:
            notes.append(error.__notes__[0])
        Moody.is_riding = False
    assert len(notes) == 1
    assert "the next step() goes on" in notes[0]
    ride.finish()
    ride.check(make(folder, max_num_seqs=1))


def test_a_request_that_was_cut_short_as_it_came_can_come_again(folder):
    llm = make(folder)
    llm.add_request("0", *request(0))
    llm.step()
    lines = Cut(lambda line: False)
    with lines:
        llm.add_request("1", *request(1))
    llm.abort("1")
    for line in sorted(lines.lines):
        with pytest.raises(KeyboardInterrupt), Cut(line.__eq__):
            llm.add_request("2", *request(2))
        if llm.has_unfinished_requests() and "2" in llm.scheduler.requests:
            llm.abort("2")
    ride = Ride(llm, seed=0)
    ride.finish()
    alone = make(folder).generate([request(0)[0]], request(0)[1], use_tqdm=False)[0]
    assert ride.outputs["0"].outputs[0].token_ids == alone.outputs[0].token_ids
    assert llm.scheduler.kv_cache.num_free == llm.num_blocks - 1


def test_generate_can_be_cut_short_anywhere(folder):
    llm = make(folder)
    asked, params = zip(*map(request, range(6)), strict=True)
    expected = llm.generate(asked, list(params), use_tqdm=False)
    lines = Cut(lambda line: False)
    with lines:
        llm.generate(asked, list(params), use_tqdm=False)
    for line in random.Random(0).sample(sorted(lines.lines), 60):
        cut = Cut(line.__eq__)
        with contextlib.suppress(KeyboardInterrupt), cut:
            llm.generate(asked, list(params), use_tqdm=False)
        assert cut.raised or line not in cut.lines
        assert not llm.has_unfinished_requests()
    assert llm.generate(asked, list(params), use_tqdm=False) == expected
    assert llm.scheduler.kv_cache.num_free == llm.num_blocks - 1
