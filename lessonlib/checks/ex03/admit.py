"""ex03.2: which requests board in this step, under slots, blocks, a watermark and a token budget."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any, NamedTuple

from lessonlib.checks.cases import DRAWN, lower, without
from lessonlib.checks.ex03.blocks import blocks_for
from lessonlib.checks.replay import Moment, before_and_after, both
from lessonlib.checks.spec import Given, Task, WrongForm, kind, parts, promise, show, whole, whole_list
from lessonlib.scheduling.kv_cache import KVCache
from lessonlib.scheduling.policy import Policy, SchedulerView
from lessonlib.scheduling.request import RequestRejectedError
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.trace import Trace


class Boarding(NamedTuple):
    """What `admit` answers; `boarded` has (id, tokens) of each."""

    boarded: list[tuple[int, int]]
    waitlist: list[int]
    rejected: list[int]

    @property
    def ids(self) -> list[int]:
        """Who boarded."""
        return [request for request, _ in self.boarded]


class _Watermark(Policy):
    """The course's plainest policy with a watermark of so many blocks, once it is set."""

    blocks = 0

    def watermark(self, scheduler: SchedulerView) -> int:
        return self.blocks


def _queues(rng: Random) -> Iterator[Given]:
    """One shortage at a time; then small cars with several, then larger ones."""
    yield from _one_shortage()
    for budgets, watermarks in product(((1_000,), (0, 1, 2, 5)), ((0,), (1, 2))):
        for waiting, times in ((1, 15), (0, 1), (2, 20), (3, 10)):
            for _ in range(times):
                yield _queue(rng, waiting, rng.randint(1, 3), 2, 5, budgets, watermarks)
    for _ in range(DRAWN):
        slots, block_size = rng.randint(1, 8), rng.choice((4, 16))
        yield _queue(rng, rng.randint(0, 8), slots, block_size, 24, (0, 20, 1_000), (0, 1, 2))


def _one_shortage() -> Iterator[Given]:
    """The smallest queues that show each rule: prompts, who rides, slots, free blocks, watermark, budget."""
    for prompts, running, slots, num_free, watermark, token_budget in (
        ([3], 0, 1, 2, 0, 1_000),  # there is just enough
        ([5], 0, 1, 2, 0, 1_000),  # more than all of memory
        ([1, 1], 0, 2, 4, 0, 1_000),
        ([1, 1], 0, 1, 4, 0, 1_000),  # a slot for one
        ([3, 1], 1, 2, 1, 0, 1_000),  # the second would fit
        ([3, 1], 0, 1, 4, 0, 1_000),
        ([3, 3], 0, 2, 3, 0, 1_000),  # memory for one
        ([3], 1, 2, 3, 0, 2),  # a token for one who rides, and a token
        ([2, 1], 0, 2, 4, 0, 2),  # tokens for one
        ([3], 1, 2, 1, 0, 2),  # memory for what would be read now
        ([1], 1, 2, 1, 1, 1_000),
        ([1], 0, 1, 1, 1, 1_000),  # nobody to keep blocks for
        ([1, 1], 0, 2, 2, 1, 1_000),  # somebody, now
    ):
        yield {
            "waitlist": list(range(len(prompts))),
            "prompts": prompts,
            "running": running,
            "slots": slots,
            "num_free": num_free,
            "num_blocks": 1 + 2 * running + num_free,
            "block_size": 2,
            "watermark": watermark,
            "token_budget": token_budget,
        }


def _queue(
    rng: Random,
    waiting: int,
    slots: int,
    block_size: int,
    most: int,
    budgets: tuple[int, ...],
    watermarks: tuple[int, ...],
) -> Given:
    """A car with up to `most` blocks beside those who ride, and so many tokens more than slots."""
    running = rng.choice((0, rng.randint(0, slots)))
    num_blocks = 1 + running + rng.randint(1, most)
    num_free = rng.randint(0, num_blocks - 1 - running)
    if not running:
        num_free = num_blocks - 1
    longest = rng.choice((block_size, 2 * block_size, num_blocks * block_size + 2))
    waitlist = list(range(waiting))
    if waiting > 3:
        rng.shuffle(waitlist)
    return {
        "waitlist": waitlist,
        "prompts": [rng.randint(1, longest) for _ in waitlist],
        "running": running,
        "slots": slots,
        "num_free": num_free,
        "num_blocks": num_blocks,
        "block_size": block_size,
        "watermark": rng.choice(watermarks),
        "token_budget": slots + rng.choice(budgets),
    }


def _smaller_queues(given: Given) -> Iterator[Given]:
    for request in given["waitlist"]:
        yield _without_request(given, request)
    for index, prompt in enumerate(given["prompts"]):
        if prompt > 1:
            prompts = given["prompts"]
            yield {**given, "prompts": [*prompts[:index], prompt - 1, *prompts[index + 1 :]]}
    yield from lower(given, "watermark", 0)
    yield from lower(given, "token_budget", given["slots"])
    if given["running"]:
        # Whoever leaves holds one block; where all leave, every block is free.
        left, fewer = given["running"] - 1, max(2, given["num_blocks"] - 1)
        num_free = min(given["num_free"], fewer - 1) if left else fewer - 1
        yield {**given, "running": left, "num_blocks": fewer, "num_free": num_free}
        yield from lower(given, "num_free", 0)
        yield from lower(given, "num_blocks", 1 + max(1, given["num_free"] + given["running"]))
    elif given["num_blocks"] > 2:
        yield {**given, "num_blocks": given["num_blocks"] - 1, "num_free": given["num_free"] - 1}
    yield from lower(given, "slots", max(1, given["running"]))


def _without_request(given: Given, gone: int) -> Given:
    """The same queue without one request; the ids above it move down."""
    waitlist = [request - (request > gone) for request in given["waitlist"] if request != gone]
    return {**given, "waitlist": waitlist, "prompts": without(given["prompts"], gone)}


def _expected_boarding(
    waitlist: list[int],
    prompts: list[int],
    running: int,
    slots: int,
    num_free: int,
    num_blocks: int,
    block_size: int,
    watermark: int,
    token_budget: int,
) -> Boarding:
    """What `Scheduler.schedule` does when so many are writing and so many blocks are free."""
    policy = _Watermark()
    scheduler = Scheduler(slots, num_blocks, block_size, token_budget, policy)
    riders = [f"on board {index}" for index in range(running)]
    for rider in riders:
        scheduler.add_request(rider, 1, 2)
    plan = scheduler.schedule()
    scheduler.update(plan, dict.fromkeys(plan.sampled_ids, 0))
    assert isinstance(scheduler.kv_cache, KVCache)
    scheduler.kv_cache.pool.allocate(scheduler.kv_cache.num_free - num_free)  # held by those on board too
    policy.blocks = watermark
    rejected = []
    for request in waitlist:
        try:
            scheduler.add_request(str(request), prompts[request], 1)
        except RequestRejectedError:
            rejected.append(request)
    boarded = [(int(row.id), row.num_scheduled_tokens) for row in scheduler.schedule().prefills]
    gone = {request for request, _ in boarded} | set(rejected)
    return Boarding(boarded, [request for request in waitlist if request not in gone], rejected)


def _read_boarding(answer: Any, given: Given) -> Boarding:
    boarded, waitlist, rejected = parts(answer, ("boarded", "waitlist", "rejected"))
    if not isinstance(boarded, list | tuple):
        raise WrongForm(f"boarded should be a list of (id, tokens); what came back is {kind(boarded)}.")
    for pair in boarded:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise WrongForm(f"each place of boarded should be a pair (id, tokens), not {show(pair)}.")
    pairs = [(whole(one, "the id of who boarded"), whole(two, "tokens")) for one, two in boarded]
    return Boarding(pairs, whole_list(waitlist, "waitlist"), whole_list(rejected, "rejected"))


@promise("nobody is lost and nobody is counted twice")
def _nobody_lost(given: Given, answer: Boarding, expected: Boarding) -> bool:
    return sorted([*answer.ids, *answer.waitlist, *answer.rejected]) == sorted(given["waitlist"])


@promise("a request that can never fit is rejected by name")
def _never_fits(given: Given, answer: Boarding, expected: Boarding) -> bool:
    return answer.rejected == expected.rejected


@promise("nobody overtakes")
def _nobody_overtakes(given: Given, answer: Boarding, expected: Boarding) -> bool:
    return answer.ids + answer.waitlist == expected.ids + expected.waitlist


@promise("everyone on board has a slot")
def _has_slot(given: Given, answer: Boarding, expected: Boarding) -> bool:
    return not answer.boarded or given["running"] + len(answer.boarded) <= given["slots"]


@promise("a step computes no more tokens than its budget")
def _within_budget(given: Given, answer: Boarding, expected: Boarding) -> bool:
    """Nobody reads less than a token, or more than there is, to make room."""
    shares = [1 <= tokens <= given["prompts"][request] for request, tokens in answer.boarded]
    return (
        all(shares) and given["running"] + sum(share for _, share in answer.boarded) <= given["token_budget"]
    )


def _left_free(given: Given, answer: Boarding) -> int:
    sizes = [blocks_for(given["prompts"][request], given["block_size"]) for request in answer.ids]
    return given["num_free"] - sum(sizes)


@promise("a prompt that boards has memory for all of it")
def _has_memory(given: Given, answer: Boarding, expected: Boarding) -> bool:
    return _left_free(given, answer) >= 0


@promise("the watermark stays free for those on board")
def _watermark_kept(given: Given, answer: Boarding, expected: Boarding) -> bool:
    others = given["running"] + len(answer.boarded) - 1  # whom the last one to board found there
    return not answer.boarded or others < 1 or _left_free(given, answer) >= given["watermark"]


@promise("an empty car needs no watermark")
def _empty_car(given: Given, answer: Boarding, expected: Boarding) -> bool:
    held_back = given["watermark"] > 0 and not given["running"] and not answer.boarded
    return not (held_back and expected.boarded)


@promise("whoever fits boards in this step")
def _boards_at_once(given: Given, answer: Boarding, expected: Boarding) -> bool:
    return len(answer.boarded) >= len(expected.boarded)


@promise("a prompt is read as far as the budget goes")
def _reads_on(given: Given, answer: Boarding, expected: Boarding) -> bool:
    return answer == expected


def _explain_boarding(given: Given, expected: Boarding) -> str:
    sizes = [blocks_for(given["prompts"][request], given["block_size"]) for request in given["waitlist"]]
    if not sizes:
        return ""
    needed = ", ".join(f"{size:,}" for size in sizes)
    budget = given["token_budget"] - given["running"]
    return f"blocks needed: {needed}; free: {given['num_free']}; tokens left for prompts: {budget:,}"


def _boarding_rides(given: Given, answer: Boarding | None, expected: Boarding) -> dict[str, Trace]:
    """Those on board, who have no names in the exercise, come after those who wait."""
    riders = range(len(given["prompts"]), len(given["prompts"]) + given["running"])
    held = given["num_blocks"] - 1 - given["num_free"]
    blocks = {rider: held // len(riders) + (index < held % len(riders)) for index, rider in enumerate(riders)}
    before = Moment(dict(enumerate(riders)), given["waitlist"], blocks, given["num_free"])

    def traced(boarding: Boarding) -> Trace:
        sizes = {name: blocks_for(given["prompts"][name], given["block_size"]) for name in boarding.ids}
        seats = dict(enumerate([*riders, *boarding.ids]))
        after = Moment(seats, boarding.waitlist, blocks | sizes, _left_free(given, boarding))
        prompts, reads = dict(enumerate(given["prompts"])), dict(boarding.boarded)
        return before_and_after(given["slots"], before, after, prompts, reads, given["block_size"])

    return both(answer, expected, traced)


ADMISSION = Task(
    id="ex03.2",
    title="admission",
    function="admit",
    cases=_queues,
    smaller=_smaller_queues,
    expected=_expected_boarding,
    read=_read_boarding,
    properties=(
        _nobody_lost,
        _never_fits,
        _nobody_overtakes,
        _has_slot,
        _within_budget,
        _has_memory,
        _watermark_kept,
        _empty_car,
        _boards_at_once,
        _reads_on,
    ),
    explain=_explain_boarding,
    rides=_boarding_rides,
    hints=(
        "Whose turn it is, is settled by the waitlist. You only decide how far down you get in this step.",
        "First set aside whoever needs more than num_blocks - 1 blocks. Then walk down the list with three "
        "shrinking numbers: free slots, tokens of the budget (one each is gone for those on board), free blocks. "
        "Stop at the first one who cannot board.",
        "Stop where running == slots, where budget == 0, or where needed > num_free - (watermark if running else "
        "0). Else the request gets min(prompt, budget) tokens and its whole prompt's blocks. `running` grows in "
        "the loop, so the second to board finds somebody there.",
    ),
)
