"""What cuts a step short, and a ride that must go on as if nothing had been."""

import random
import sys
from pathlib import Path

import lessonlib
from lessonlib.engine import SamplingParams
from lessonlib.trace import Kind

HOME = str(Path(lessonlib.__file__).parent)


def request(number, with_text=False):
    """(prompt, params): lengths, greedy and drawn, logprobs, stops, one prompt in three with the same beginning.

    Args:
        with_text: stop strings and bad words too, which need a tokenizer.
    """
    rng = random.Random(number)
    start = [7] * 20 if number % 3 == 0 else []
    prompt = {"prompt_token_ids": start + [rng.randrange(3, 256) for _ in range(rng.randint(1, 30))]}
    return prompt, SamplingParams(
        max_tokens=rng.randint(1, 14),
        temperature=rng.choice([0, 0.9]),
        seed=number,
        logprobs=rng.choice([None, 2]),
        stop_token_ids=[rng.randrange(256)],
        repetition_penalty=rng.choice([1, 1, 1, 1.3]),
        min_tokens=rng.choice([0, 1]),
        logit_bias=rng.choice([None, None, {rng.randrange(256): 2.0}]),
        **(
            {"stop": [chr(rng.randrange(33, 127)), "never"], "bad_words": rng.choice([[], [], ["a", "bc"]])}
            if with_text
            else {}
        ),
    )


class Cut:
    """Raises once, at the first line of lessonlib that `wants` accepts, a (file, line); `lines` has those it passed."""

    def __init__(self, wants, error=KeyboardInterrupt):
        self.wants, self.error, self.lines, self.raised = wants, error, set(), None

    def __enter__(self):
        sys.settrace(self._call)

    def __exit__(self, *_):
        sys.settrace(None)

    def _call(self, frame, event, _):
        return self._line if frame.f_code.co_filename.startswith(HOME) else None

    def _line(self, frame, event, _):
        line = frame.f_code.co_filename, frame.f_lineno
        if event == "line":
            self.lines.add(line)
            if self.raised is None and self.wants(line):
                self.raised = line
                raise self.error("cut short")
        return self._line


class Ride:
    """Requests come and go, some are aborted; what `step` returned, by request."""

    def __init__(self, llm, seed):
        self.llm, self.rng, self.outputs, self.aborted, self.number = llm, random.Random(seed), {}, set(), 0

    def arrive(self):
        if self.rng.random() < 0.3 and len(self.llm.scheduler.requests) < 7:
            self.llm.add_request(str(self.number), *self.request(self.number))
            self.number += 1
        if self.rng.random() < 0.03 and self.llm.scheduler.requests:
            name = self.rng.choice(list(self.llm.scheduler.requests))
            self.aborted.add(self.llm.abort(name).request_id)

    def request(self, number):
        return request(number, with_text=self.llm.tokenizer is not None)

    def step(self):
        for output in self.llm.step():
            self.outputs[output.request_id] = output

    def finish(self):
        while self.llm.has_unfinished_requests():
            self.step()

    def check(self, alone):
        """Nobody is missing, everyone's answer is the one alone, every block is back, the Trace tells it."""
        llm = self.llm
        assert llm.scheduler.kv_cache.num_free == llm.num_blocks - 1
        found = {name: output for name, output in self.outputs.items() if name not in self.aborted}
        assert found.keys() | self.aborted == set(map(str, range(self.number)))
        for name, output in found.items():
            expected = alone.generate(*self.request(int(name)), use_tqdm=False)[0]
            assert output.finished
            for part in ("token_ids", "text", "finish_reason", "stop_reason"):
                assert getattr(output.outputs[0], part) == getattr(expected.outputs[0], part), (name, part)
            ours, theirs = (each.outputs[0].logprobs or [] for each in (output, expected))
            assert [list(each) for each in ours] == [list(each) for each in theirs]
        given = llm.trace.output_tokens()
        assert {name: given[int(name)] for name in found} == {
            name: len(output.outputs[0].token_ids) for name, output in found.items()
        }
        assert set(llm.trace.rows(Kind.FINISH)["request"]) == set(map(int, found))
        assert llm.trace.num_requests == self.number
        from lessonlib.viz import ride as picture  # a machine that only computes has no widgets

        assert picture.Ride.from_trace(llm.trace, "").num_steps == llm.trace.num_steps
