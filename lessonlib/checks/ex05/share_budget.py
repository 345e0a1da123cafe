"""ex05.2: the token budget of a step, shared out among requests."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any, NamedTuple

from lessonlib.checks.cases import DRAWN, fewer, lower
from lessonlib.checks.ex05.requests import Request, read_list, replaced
from lessonlib.checks.spec import Given, Task, WrongForm, count, promise, show, whole
from lessonlib.scheduling.request import RequestState, RequestStatus
from lessonlib.scheduling.scheduler import Scheduler

Shares = list[tuple[int, int]]
COUNTS = ("prompt_tokens", "num_output_tokens", "num_computed_tokens", "prefill_target")


class Counts(NamedTuple):
    """One request's `COUNTS`."""

    prompt: int
    output: int
    computed: int
    target: int


def _writes(prompt: int, output: int, since: int = 0) -> Counts:
    """Somebody who was given `since` tokens before they boarded for the last time, and some afterwards."""
    return Counts(prompt, output, prompt + output - 1, prompt + since)


def _reads(prompt: int, computed: int, output: int = 0) -> Counts:
    """Somebody who boarded with a prompt and, after a preemption, with words of their own."""
    return Counts(prompt, output, computed, prompt + output)


def _waits(prompt: int, output: int = 0) -> Counts:
    return Counts(prompt, output, 0, 0)


def _steps(rng: Random) -> Iterator[Given]:
    """One rule at a time; then small steps with several, then larger ones."""
    yield from _one_rule()
    for most in (1, 2, 3):
        for _ in range(20):
            yield _step(rng, slots=rng.randint(1, most), most_waiting=most - 1, longest=3)
    for _ in range(DRAWN):
        yield _step(rng, slots=rng.randint(2, 8), most_waiting=6, longest=rng.choice((10, 500)))


def _one_rule() -> Iterator[Given]:
    """The smallest steps that show each rule: who is on board, who waits, slots, budget."""
    for running, waiting, slots, token_budget in (
        ([_writes(1, 1)], [], 1, 1),
        ([_reads(3, 0)], [], 1, 9),
        ([_reads(3, 1)], [], 1, 9),  # one part is read
        ([_reads(3, 1)], [], 1, 1),  # and one more will be
        ([], [_waits(3)], 1, 9),
        ([], [_waits(3)], 1, 2),
        ([], [_waits(2, 1)], 1, 9),  # it rode before
        ([_reads(2, 2, output=2)], [], 1, 9),  # its prompt is read again, its words are not
        ([_writes(2, 2, since=1)], [], 1, 9),
        ([_reads(3, 0), _writes(1, 1)], [], 2, 2),  # the prompt came first
        ([_reads(3, 0), _writes(1, 1)], [], 2, 9),
        ([_reads(3, 0), _reads(2, 1)], [], 2, 2),  # the second would be done
        ([_reads(3, 0), _reads(1, 0)], [], 2, 9),
        ([_reads(3, 0)], [_waits(1)], 2, 2),
        ([_reads(3, 0)], [_waits(1)], 2, 9),
        ([], [_waits(3), _waits(1)], 2, 2),
        ([], [_waits(3), _waits(1)], 2, 9),
        ([], [_waits(1), _waits(1)], 1, 9),  # a slot for one
        ([_writes(1, 1)], [_waits(1)], 1, 9),
        ([_writes(1, 1), _writes(1, 1)], [_waits(1)], 3, 3),
    ):
        yield _named(running, waiting, slots, token_budget)


def _named(running: list[Counts], waiting: list[Counts], slots: int, token_budget: int) -> Given:
    """The case, with ids in the order in which they stand."""
    requests = [
        {"id": index, **dict(zip(COUNTS, counts, strict=True))}
        for index, counts in enumerate(running + waiting)
    ]
    on_board = len(running)
    return {
        "running": requests[:on_board],
        "waiting": requests[on_board:],
        "slots": slots,
        "token_budget": token_budget,
    }


def _step(rng: Random, slots: int, most_waiting: int, longest: int) -> Given:
    riders = [_rider(rng, longest) for _ in range(rng.randint(0, slots))]
    waiting = [
        _waits(rng.randint(1, longest), rng.choice((0, 0, rng.randint(1, longest))))
        for _ in range(rng.randint(0 if riders else 1, max(1, most_waiting)))
    ]
    return _named(riders, waiting, slots, slots + rng.choice((0, 1, longest, 3 * longest, 2_000)))


def _rider(rng: Random, longest: int) -> Counts:
    prompt, output = rng.randint(1, longest), rng.randint(1, longest)
    if rng.random() < 0.5:
        return _writes(prompt, output, since=rng.choice((0, rng.randrange(output))))
    output = rng.choice((0, output))
    return _reads(prompt, rng.randrange(prompt + output), output)


def _smaller_steps(given: Given) -> Iterator[Given]:
    """The smaller case stays like the larger one: where the budget was short, it still is.

    Whoever lets a prompt eat the others' tokens is not told of the order of a batch in which all are served.
    """
    for smaller in _fewer_tokens(given):
        if _is_short(smaller) == _is_short(given):
            yield smaller


def _is_short(given: Given) -> bool:
    served = [*given["running"], *given["waiting"][: given["slots"] - len(given["running"])]]
    return sum(map(_lacks, served)) > given["token_budget"]


def _fewer_tokens(given: Given) -> Iterator[Given]:
    """Fewer requests, slots and tokens; each request is still in a state that it can be in."""
    many = len(given["running"]) + len(given["waiting"])
    for name in ("running", "waiting") if many > 1 else ():
        yield from fewer(given, name)
    yield from lower(given, "slots", max(1, len(given["running"])))
    yield from lower(given, "token_budget", given["slots"])
    for name in ("running", "waiting"):
        for index, request in enumerate(given[name]):
            for smaller in _smaller_counts(request):
                if _can_be(smaller, on_board=name == "running"):
                    yield replaced(given, name, index, smaller)


def _smaller_counts(request: Request) -> Iterator[Request]:
    """The request with half, and with one less, of some of its tokens."""
    prompt, output, computed, target = COUNTS
    for name, names in product((prompt, output), ((computed, target), (computed,), (target,), ())):
        for less in sorted({max(1, request[name] // 2), 1}, reverse=True):
            yield {**request, **{each: request[each] - less for each in (name, *names)}}
    yield {**request, computed: request[computed] - 1}


def _can_be(request: Request, on_board: bool) -> bool:
    prompt, output, computed, target = (request[name] for name in COUNTS)
    if prompt < 1 or output < 0:
        return False
    if not on_board:
        return computed == target == 0
    writes = prompt <= target <= computed == prompt + output - 1
    reads = 0 <= computed < target == prompt + output
    return writes or reads


def _expected_shares(running: list[Request], waiting: list[Request], slots: int, token_budget: int) -> Shares:
    """What `Scheduler.schedule` plans with so many free slots, memory being no question."""
    free = slots - len(running)
    scheduler = Scheduler(max(1, free), token_budget=token_budget)
    for request in waiting if free else ():
        scheduler.add_request(str(request["id"]), _num_tokens(request), max_tokens=1)
    scheduler.running += [_state(request, order) for order, request in enumerate(running)]
    return [(int(row.id), row.num_scheduled_tokens) for row in scheduler.schedule().scheduled]


def _state(request: Request, order: int) -> RequestState:
    return RequestState(
        str(request["id"]),
        request["prompt_tokens"],
        request["num_output_tokens"] + 2,  # it wants more than this step gives
        order=order,
        status=RequestStatus.RUNNING,
        num_output_tokens=request["num_output_tokens"],
        num_computed_tokens=request["num_computed_tokens"],
        prefill_target=request["prefill_target"],
    )


def _read_shares(answer: Any, given: Given) -> Shares:
    pairs = read_list(answer, "The answer")
    if not pairs and _writers(given):
        raise WrongForm("The answer is empty, and somebody is writing: they get a token in every step.")
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise WrongForm(f"each place of the answer should be a pair (id, tokens), not {show(pair)}.")
    return [(whole(one, "the id in a pair"), whole(two, "tokens")) for one, two in pairs]


def _num_tokens(request: Request) -> int:
    return request["prompt_tokens"] + request["num_output_tokens"]


def _lacks(request: Request) -> int:
    return _num_tokens(request) - request["num_computed_tokens"]


def _is_reading(request: Request) -> bool:
    return request["num_computed_tokens"] < request["prefill_target"]


def _writers(given: Given) -> list[int]:
    return [request["id"] for request in given["running"] if not _is_reading(request)]


def _readers(given: Given) -> list[Request]:
    """Whoever reads, or would if they boarded, in the order in which they are served."""
    return [*filter(_is_reading, given["running"]), *given["waiting"]]


@promise("whoever is served is here, and is served once")
def _served_once(given: Given, answer: Shares, expected: Shares) -> bool:
    here = {request["id"] for request in given["running"] + given["waiting"]}
    served = [name for name, _ in answer]
    return len(set(served)) == len(served) and set(served) <= here


@promise("a step computes no more tokens than its budget")
def _within_budget(given: Given, answer: Shares, expected: Shares) -> bool:
    """Nobody's share is below zero to make room for others."""
    return sum(max(0, tokens) for _, tokens in answer) <= given["token_budget"]


@promise("nobody computes what is computed already, or what is not there yet")
def _what_they_lack(given: Given, answer: Shares, expected: Shares) -> bool:
    lacks = {request["id"]: _lacks(request) for request in given["running"] + given["waiting"]}
    return all(1 <= tokens <= lacks[name] for name, tokens in answer)


@promise("no prompt holds up those who are writing")
def _nobody_is_held_up(given: Given, answer: Shares, expected: Shares) -> bool:
    return set(_writers(given)) <= {name for name, _ in answer}


@promise("those who are writing come first in the batch")
def _writers_in_front(given: Given, answer: Shares, expected: Shares) -> bool:
    writers = _writers(given)
    return [name for name, _ in answer[: len(writers)]] == writers


@promise("everyone on board has a slot")
def _has_slot(given: Given, answer: Shares, expected: Shares) -> bool:
    boarded = {request["id"] for request in given["waiting"]} & {name for name, _ in answer}
    return len(given["running"]) + len(boarded) <= given["slots"]


@promise("what was generated before a preemption is computed again")
def _computed_again(given: Given, answer: Shares, expected: Shares) -> bool:
    """Looks at the shares of those who ride again, where budget and slots gave them all they lack."""
    again = {request["id"]: _lacks(request) for request in _readers(given) if request["num_output_tokens"]}
    given_all = {name: tokens for name, tokens in expected if again.get(name) == tokens}
    shares = dict(answer)
    return all(shares.get(name, tokens) == tokens for name, tokens in given_all.items())


@promise("nobody overtakes")
def _nobody_overtakes(given: Given, answer: Shares, expected: Shares) -> bool:
    """Readers stand in the order of the batch, and behind one who was cut short nobody is served."""
    readers, shares = _readers(given), dict(answer)
    served = [request["id"] for request in readers if request["id"] in shares]
    all_read = [shares.get(request["id"]) == _lacks(request) for request in readers]
    behind = readers[all_read.index(False) + 1 :] if False in all_read else []
    in_order = [name for name, _ in answer if name in served] == served
    return in_order and not any(request["id"] in shares for request in behind)


@promise("the budget is used as far as it goes")
def _budget_used(given: Given, answer: Shares, expected: Shares) -> bool:
    return answer == expected


def _explain_shares(given: Given, expected: Shares) -> str:
    left = given["token_budget"] - len(_writers(given))
    lacking = [_lacks(request) for request in _readers(given)]
    if not lacking:
        return ""
    return f"left for those who read: {count(left, 'token')}; they lack {', '.join(map(str, lacking))}"


SHARING = Task(
    id="ex05.2",
    title="the token budget",
    function="share_budget",
    cases=_steps,
    smaller=_smaller_steps,
    expected=_expected_shares,
    read=_read_shares,
    properties=(
        _served_once,
        _within_budget,
        _what_they_lack,
        _nobody_is_held_up,
        _writers_in_front,
        _has_slot,
        _computed_again,
        _nobody_overtakes,
        _budget_used,
    ),
    explain=_explain_shares,
    hints=(
        "Sort those on board into two groups first. What tells a writer from a reader?",
        "A reader has num_computed_tokens < prefill_target. Serve writers, readers, then as many of the waiting "
        "as there are free slots.",
        "Each lacks prompt_tokens + num_output_tokens - num_computed_tokens and gets the smaller of that and what "
        "is left of the budget. Whoever would get 0 is left out.",
    ),
)
