"""What exercise 03 must do: blocks, admission, preemption and the hashes that prefixes are found by.

The answers that are due come from `lessonlib.scheduling`: the block pool, the K/V cache and the scheduler
are brought into the state of a case and asked what they would do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any, NamedTuple

from lessonlib.checks.replay import CAME_BACK, DUE, Moment, before_and_after
from lessonlib.checks.rides import fewer, lower, without
from lessonlib.checks.spec import (
    Exercise,
    Given,
    Property,
    Task,
    WrongForm,
    count,
    kind,
    parts,
    show,
    whole,
    whole_list,
)
from lessonlib.scheduling.block_pool import BlockPool, block_hash
from lessonlib.scheduling.kv_cache import KVCache
from lessonlib.scheduling.policy import Policy, SchedulerView
from lessonlib.scheduling.request import RequestRejectedError, RequestState, RequestStatus
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.trace import Trace

Request = dict[str, Any]

DRAWN = 30
LAST_FIRST = "freed blocks go to the end of the list, the last one first"


def _blocks_for(tokens: int, block_size: int) -> int:
    return -(-tokens // block_size)


# ----- ex03.1 -----


class Blocks(NamedTuple):
    """What `allocate` and `append` answer."""

    free: list[int]
    table: list[int] | None


def _memory(rng: Random) -> Iterator[Given]:
    """Each function with blocks to spare, then with few, then with many tokens."""
    for num_free, block_size, num_tokens in product((6, 1, 0, 2, 3), (1, 2, 3), (1, 2, 3, 4, 6)):
        yield {"free": _ids(rng, num_free), "num_tokens": num_tokens, "block_size": block_size}
    for num_free, held, block_size in product((6, 1, 0, 2), (1, 2, 0), (1, 2, 3)):
        for more in range(block_size + 2):
            yield _table_to_grow(rng, held, num_free, held * block_size + more, block_size)
        if held:
            yield _table_to_grow(rng, held, num_free, (held - 1) * block_size + 1, block_size)
    for held, num_free in product((1, 2, 3), (0, 1, 2)):
        yield _table_to_free(rng, held, num_free)
    yield from ({"num_blocks": num_blocks} for num_blocks in (2, 3, 5, 100))
    for _ in range(DRAWN):
        held, num_free, block_size = rng.randint(0, 9), rng.randint(0, 9), rng.choice((1, 4, 16))
        num_tokens = rng.randint(1, (held + num_free + 2) * block_size)
        yield _table_to_grow(rng, held, num_free, num_tokens, block_size)
        yield {"free": _ids(rng, num_free), "num_tokens": num_tokens, "block_size": block_size}
        yield _table_to_free(rng, held + 1, num_free)


def _ids(rng: Random, many: int) -> list[int]:
    """Block ids in any order, as after a while of use."""
    return rng.sample(range(1, 2 * many + 2), many)


def _table_to_grow(rng: Random, held: int, num_free: int, num_tokens: int, block_size: int) -> Given:
    memory = _table_to_free(rng, held, num_free)
    return {**memory, "num_tokens": max(1, num_tokens), "block_size": block_size}


def _table_to_free(rng: Random, held: int, num_free: int) -> Given:
    ids = _ids(rng, held + num_free)
    return {"free": ids[held:], "table": ids[:held]}


def _smaller_memory(given: Given) -> Iterator[Given]:
    if "num_blocks" in given:
        yield from lower(given, "num_blocks", 2)
        return
    if "num_tokens" not in given:
        yield from fewer(given, "table", least=1)
        yield from fewer(given, "free")
        return
    for smaller in _smaller_growth(given):
        if _spare(smaller) == _spare(given):
            yield smaller


def _smaller_growth(given: Given) -> Iterator[Given]:
    if "table" in given:
        yield from fewer(given, "table")
    yield from fewer(given, "free")
    yield from lower(given, "num_tokens", 1)
    yield from lower(given, "block_size", 1)
    if given["num_tokens"] > given["block_size"]:  # a block less, of what is wanted and of what there is
        less = {**given, "num_tokens": given["num_tokens"] - given["block_size"]}
        yield from fewer(less, "free")
        yield from fewer(less, "table") if "table" in given else ()


def _spare(given: Given) -> int:
    """1 where a free block is left over, 0 where there are just enough, -1 where there are too few.

    The smaller case stays like the larger one: who counts blocks wrong is not told of a refusal.
    """
    missing = _blocks_for(given["num_tokens"], given["block_size"]) - len(given.get("table", []))
    spare = len(given["free"]) - max(0, missing)
    return (spare > 0) - (spare < 0)


def _pool_with(free: list[int], table: list[int]) -> BlockPool:
    """A pool in which these blocks are free, in this order, and every block holds something worth finding."""
    pool = BlockPool(max([1, *free, *table]) + 1)
    for block in pool.allocate(pool.capacity):
        pool.register(block, str(block).encode())
    pool.free(free[::-1])
    return pool


def _due_memory(
    free: list[int] | None = None,
    table: list[int] | None = None,
    num_tokens: int = 0,
    block_size: int = 1,
    num_blocks: int = 0,
) -> Any:
    """What `KVCache` does: a new pool, a table let go of (no tokens), or one that grows from nothing on."""
    if free is None:
        return BlockPool(num_blocks).free_blocks()
    pool = _pool_with(free, table or [])
    pool.block_size = block_size
    cache, request = KVCache(pool), RequestState("", 1, 1, block_table=list(table or []))
    if not num_tokens:
        cache.free(request)
        return pool.free_blocks()
    if not cache.can_append(request, num_tokens):
        return Blocks(free, None)
    cache.append(request, num_tokens)
    return Blocks(pool.free_blocks(), request.block_table)


def _read_memory(answer: Any, given: Given) -> Any:
    if "num_tokens" not in given:
        return whole_list(answer, "the free list")
    free, table = parts(answer, ("free", "table"))
    return Blocks(whole_list(free, "free"), None if table is None else whole_list(table, "table"))


def _everything(answer: Any) -> list[int]:
    """All block ids of an answer."""
    return [*answer.free, *(answer.table or [])] if isinstance(answer, Blocks) else answer


def _null_block_stays(given: Given, answer: Any, due: Any) -> bool:
    return 0 not in _everything(answer)


def _fits_or_not(given: Given, answer: Any, due: Any) -> bool:
    return not isinstance(due, Blocks) or (answer.table is None) == (due.table is None)


def _blocks_conserved(given: Given, answer: Any, due: Any) -> bool:
    """A refused request still has the table that it had; it is no part of the answer, nor of the due one."""
    return sorted(_everything(answer)) == sorted(_everything(due))


def _just_enough(given: Given, answer: Any, due: Any) -> bool:
    return len(answer.table or []) == len(due.table or []) if isinstance(due, Blocks) else True


def _grows_at_end(given: Given, answer: Any, due: Any) -> bool:
    table = given.get("table", [])
    return not isinstance(due, Blocks) or due.table is None or answer.table[: len(table)] == table


def _longest_free_first(given: Given, answer: Any, due: Any) -> bool:
    return tuple(given) == ("free", "table") or answer == due


def _last_one_first(given: Given, answer: Any, due: Any) -> bool:
    return answer == due


def _explain_memory(given: Given, due: Any) -> str:
    if "num_tokens" not in given:
        return ""
    size, tokens = given["block_size"], given["num_tokens"]
    needed = f"{count(tokens, 'token')} in blocks of {size} are {count(_blocks_for(tokens, size), 'block')}"
    return f"{needed}, {len(given['free'])} free"


MEMORY = Task(
    id="ex03.1",
    title="allocate, append, release",
    function="allocate",
    cases=_memory,
    smaller=_smaller_memory,
    due=_due_memory,
    read=_read_memory,
    properties=(
        Property("block 0 is never handed out", _null_block_stays),
        Property("whoever fits gets a table, and nobody else does", _fits_or_not),
        Property("no block is lost and none is held twice", _blocks_conserved),
        Property("a table has just the blocks that its tokens need", _just_enough),
        Property("a table grows at its end", _grows_at_end),
        Property("the block that has been free longest is handed out first", _longest_free_first),
        Property(LAST_FIRST, _last_one_first),
    ),
    explain=_explain_memory,
    others={
        "append": ("free", "table", "num_tokens", "block_size"),
        "release": ("free", "table"),
        "free_list": ("num_blocks",),
    },
)


# ----- ex03.2 -----


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
    for place, prompt in enumerate(given["prompts"]):
        if prompt > 1:
            prompts = given["prompts"]
            yield {**given, "prompts": [*prompts[:place], prompt - 1, *prompts[place + 1 :]]}
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


def _due_boarding(
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
    riders = [f"on board {place}" for place in range(running)]
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


def _nobody_lost(given: Given, answer: Boarding, due: Boarding) -> bool:
    return sorted([*answer.ids, *answer.waitlist, *answer.rejected]) == sorted(given["waitlist"])


def _never_fits(given: Given, answer: Boarding, due: Boarding) -> bool:
    return answer.rejected == due.rejected


def _nobody_overtakes(given: Given, answer: Boarding, due: Boarding) -> bool:
    return answer.ids + answer.waitlist == due.ids + due.waitlist


def _has_slot(given: Given, answer: Boarding, due: Boarding) -> bool:
    return not answer.boarded or given["running"] + len(answer.boarded) <= given["slots"]


def _within_budget(given: Given, answer: Boarding, due: Boarding) -> bool:
    """Nobody reads less than a token, or more than there is, to make room."""
    shares = [1 <= tokens <= given["prompts"][request] for request, tokens in answer.boarded]
    return (
        all(shares) and given["running"] + sum(share for _, share in answer.boarded) <= given["token_budget"]
    )


def _left_free(given: Given, answer: Boarding) -> int:
    sizes = [_blocks_for(given["prompts"][request], given["block_size"]) for request in answer.ids]
    return given["num_free"] - sum(sizes)


def _has_memory(given: Given, answer: Boarding, due: Boarding) -> bool:
    return _left_free(given, answer) >= 0


def _watermark_kept(given: Given, answer: Boarding, due: Boarding) -> bool:
    others = given["running"] + len(answer.boarded) - 1  # whom the last one to board found there
    return not answer.boarded or others < 1 or _left_free(given, answer) >= given["watermark"]


def _empty_car(given: Given, answer: Boarding, due: Boarding) -> bool:
    held_back = given["watermark"] > 0 and not given["running"] and not answer.boarded
    return not (held_back and due.boarded)


def _boards_at_once(given: Given, answer: Boarding, due: Boarding) -> bool:
    return len(answer.boarded) >= len(due.boarded)


def _reads_on(given: Given, answer: Boarding, due: Boarding) -> bool:
    return answer == due


def _explain_boarding(given: Given, due: Boarding) -> str:
    sizes = [_blocks_for(given["prompts"][request], given["block_size"]) for request in given["waitlist"]]
    if not sizes:
        return ""
    needed = ", ".join(f"{size:,}" for size in sizes)
    budget = given["token_budget"] - given["running"]
    return f"blocks needed: {needed}; free: {given['num_free']}; tokens left for prompts: {budget:,}"


def _boarding_rides(given: Given, answer: Boarding | None, due: Boarding) -> dict[str, Trace]:
    """Those on board, who have no names in the exercise, come after those who wait."""
    riders = range(len(given["prompts"]), len(given["prompts"]) + given["running"])
    held = given["num_blocks"] - 1 - given["num_free"]
    blocks = {rider: held // len(riders) + (place < held % len(riders)) for place, rider in enumerate(riders)}
    before = Moment(dict(enumerate(riders)), given["waitlist"], blocks, given["num_free"])

    def after(boarding: Boarding) -> Moment:
        sizes = {name: _blocks_for(given["prompts"][name], given["block_size"]) for name in boarding.ids}
        seats = dict(enumerate([*riders, *boarding.ids]))
        return Moment(seats, boarding.waitlist, blocks | sizes, _left_free(given, boarding))

    return {
        name: before_and_after(
            given["slots"],
            before,
            after(boarding),
            dict(enumerate(given["prompts"])),
            dict(boarding.boarded),
            given["block_size"],
        )
        for name, boarding in ((CAME_BACK, answer), (DUE, due))
        if boarding is not None
    }


ADMISSION = Task(
    id="ex03.2",
    title="admission",
    function="admit",
    cases=_queues,
    smaller=_smaller_queues,
    due=_due_boarding,
    read=_read_boarding,
    properties=(
        Property("nobody is lost and nobody is counted twice", _nobody_lost),
        Property("a request that can never fit is named and set aside", _never_fits),
        Property("nobody overtakes", _nobody_overtakes),
        Property("everyone on board has a slot", _has_slot),
        Property("a step computes no more tokens than its budget", _within_budget),
        Property("a prompt that boards has memory for all of it", _has_memory),
        Property("the watermark stays free for those on board", _watermark_kept),
        Property("an empty car needs no watermark", _empty_car),
        Property("whoever fits boards in this step", _boards_at_once),
        Property("a prompt is read as far as the budget goes", _reads_on),
    ),
    explain=_explain_boarding,
    rides=_boarding_rides,
)


# ----- ex03.3 -----


class Car(NamedTuple):
    """What `preempt` answers."""

    running: list[Request]
    waiting: list[Request]
    free: list[int]


FIELDS = ("id", "prompt", "generated", "computed", "table")


def _short_of_memory(rng: Random) -> Iterator[Given]:
    """Every pattern of up to 3 full tables, with few blocks free; then larger cars."""
    for riders, num_free, waiting in product((1, 2, 3), (0, 1, 2), (0, 1)):
        for full in product((True, False), repeat=riders):
            if riders > 1 or num_free or not full[0]:
                yield _car(rng, full, num_free, waiting, block_size=2)
    for _ in range(DRAWN):
        full = tuple(rng.random() < 0.7 for _ in range(rng.randint(2, 7)))
        yield _car(rng, full, rng.randint(0, 3), rng.randint(0, 2), rng.choice((1, 3, 4)))


def _car(rng: Random, full: tuple[bool, ...], num_free: int, waiting: int, block_size: int) -> Given:
    """A car with a full table where `full` says so (with blocks of 1 there are no others)."""
    riders = []
    for is_full in full:
        spare = 0 if is_full or block_size == 1 else rng.randint(1, block_size - 1)
        computed = rng.randint(1, 3) * block_size - spare
        generated = rng.randint(1, computed)
        riders.append((computed + 1 - generated, generated, computed))
    sizes = [_blocks_for(computed, block_size) for _, _, computed in riders]
    blocks = iter(_ids(rng, sum(sizes) + num_free))
    names = iter(rng.sample(range(20), len(full) + waiting) if len(full) > 3 else range(9))
    running = [
        dict(zip(FIELDS, (next(names), *rider, [next(blocks) for _ in range(size)]), strict=True))
        for rider, size in zip(riders, sizes, strict=True)
    ]
    return {
        "running": running,
        "waiting": [
            dict(zip(FIELDS, (next(names), rng.randint(1, 9), rng.choice((0, 3)), 0, []), strict=True))
            for _ in range(waiting)
        ],
        "free": list(blocks),
        "block_size": block_size,
    }


def _smaller_cars(given: Given) -> Iterator[Given]:
    """Fewer requests, fewer blocks, shorter texts; each of those on board still fits alone."""
    for name in ("waiting", "running", "free"):
        yield from filter(_each_fits_alone, fewer(given, name, least=1 if name == "running" else 0))
    for name in ("running", "waiting"):
        for place, request in enumerate(given[name]):
            for shorter in _shorter(request, given["block_size"]):
                car = {**given, name: [*given[name][:place], shorter, *given[name][place + 1 :]]}
                if _each_fits_alone(car):
                    yield car


def _shorter(request: Request, block_size: int) -> Iterator[Request]:
    """The same request one token, or one block, shorter."""
    on_board = bool(request["table"])
    for name, gone in product(("generated", "prompt"), (1, block_size)):
        least = 1 if name == "prompt" or on_board else 0
        computed = max(0, request["computed"] - gone)
        if request[name] - gone >= least and (computed or not on_board):
            table = request["table"][: _blocks_for(computed, block_size)]
            yield {**request, name: request[name] - gone, "computed": computed, "table": table}


def _each_fits_alone(given: Given) -> bool:
    memory = len(given["free"]) + sum(len(request["table"]) for request in given["running"])
    needed = [_blocks_for(request["computed"] + 1, given["block_size"]) for request in given["running"]]
    return max(needed) <= memory


def _due_car(running: list[Request], waiting: list[Request], free: list[int], block_size: int) -> Car:
    """Whom `Scheduler.schedule` throws out; in what order their blocks are freed, `_due_memory` says."""
    pool = _pool_with(free, [block for request in running for block in request["table"]])
    pool.block_size, pool.hashes = block_size, [None] * pool.num_blocks
    scheduler = Scheduler(len(running), kv_cache=KVCache(pool))
    names = {str(request["id"]): request for request in running}
    for place, (name, request) in enumerate(names.items()):
        scheduler.running.append(
            RequestState(
                name,
                request["prompt"],
                request["generated"] + 2,  # it wants more than this step gives
                order=place,
                status=RequestStatus.RUNNING,
                slot=place,
                block_table=list(request["table"]),
                num_computed_tokens=request["computed"],
                num_output_tokens=request["generated"],
            )
        )
    plan = scheduler.schedule()
    for state in plan.preempted:
        free = _due_memory(free, names[state.id]["table"])
    front = [
        {**names[state.id], "generated": state.num_output_tokens, "computed": 0, "table": []}
        for state in (scheduler.waiting.pop() for _ in plan.preempted)
    ]
    return Car([names[state.id] for state in scheduler.running], [*front, *waiting], free)


def _read_car(answer: Any, given: Given) -> Car:
    running, waiting, free = parts(answer, ("running", "waiting", "free"))
    return Car(
        _read_requests(running, "running"), _read_requests(waiting, "waiting"), whole_list(free, "free")
    )


def _read_requests(value: Any, what: str) -> list[Request]:
    if not isinstance(value, list | tuple):
        raise WrongForm(f"{what} should be a list of requests; what came back is {kind(value)}.")
    return [_read_request(item, what) for item in value]


def _read_request(value: Any, what: str) -> Request:
    if not isinstance(value, dict):
        raise WrongForm(f"each place of {what} should be a request, a dict; {show(value)} is {kind(value)}.")
    if value.keys() != set(FIELDS):
        there = ", ".join(map(str, value)) or "nothing"
        raise WrongForm(f"each request of {what} should have {', '.join(FIELDS)}; one has {there}.")
    numbers = {name: whole(value[name], f"{name} of a request") for name in FIELDS[:-1]}
    return {**numbers, "table": whole_list(value["table"], "the table of a request")}


def _names(requests: list[Request]) -> list[int]:
    return [request["id"] for request in requests]


def _of_each(requests: list[Request], *fields: str) -> dict[int, list[Any]]:
    """Some fields of each request, by id."""
    return {request["id"]: [request[name] for name in fields] for request in requests}


def _none_lost(given: Given, answer: Car, due: Car) -> bool:
    return sorted(_names(answer.running + answer.waiting)) == sorted(_names(due.running + due.waiting))


def _stay_as_they_are(given: Given, answer: Car, due: Car) -> bool:
    before = {request["id"]: request for request in given["running"]}
    return all(before.get(request["id"]) == request for request in answer.running)


def _blocks_come_back(given: Given, answer: Car, due: Car) -> bool:
    """Whoever waits holds nothing, and nothing that is free is held."""
    tables = [block for request in answer.running for block in request["table"]]
    blocks = [block for request in given["running"] for block in request["table"]]
    waits_empty = not any(request["table"] for request in answer.waiting)
    return waits_empty and sorted(tables + answer.free) == sorted(blocks + given["free"])


def _can_grow(given: Given, answer: Car, due: Car) -> bool:
    return _full_tables(answer.running, given["block_size"]) <= len(answer.free)


def _full_tables(running: list[Request], block_size: int) -> int:
    return sum(request["computed"] == len(request["table"]) * block_size for request in running)


def _without_need(given: Given, answer: Car, due: Car) -> bool:
    return len(answer.running) >= len(due.running)


def _last_in_first_out(given: Given, answer: Car, due: Car) -> bool:
    return answer.running == due.running


def _front_of_queue(given: Given, answer: Car, due: Car) -> bool:
    return _names(answer.waiting) == _names(due.waiting)


def _generated_kept(given: Given, answer: Car, due: Car) -> bool:
    kept = "prompt", "generated"
    return _of_each(answer.waiting, *kept) == _of_each(due.waiting, *kept)


def _computed_again(given: Given, answer: Car, due: Car) -> bool:
    return answer.waiting == due.waiting


def _freed_last_first(given: Given, answer: Car, due: Car) -> bool:
    return answer == due


def _explain_car(given: Given, due: Car) -> str:
    full = _full_tables(given["running"], given["block_size"])
    return f"{count(full, 'table')} full, {count(len(given['free']), 'block')} free"


def _car_rides(given: Given, answer: Car | None, due: Car) -> dict[str, Trace]:
    """The car before and after; whoever stays keeps their slot."""
    slots = {request["id"]: slot for slot, request in enumerate(given["running"])}

    def moment(car: Car) -> Moment:
        seats = {slots[request["id"]]: request["id"] for request in car.running}
        blocks = {request["id"]: len(request["table"]) for request in car.running}
        return Moment(seats, _names(car.waiting), blocks, len(car.free))

    before = moment(Car(given["running"], given["waiting"], given["free"]))
    return {
        name: before_and_after(len(slots), before, moment(car), block_size=given["block_size"])
        for name, car in ((CAME_BACK, answer), (DUE, due))
        if car is not None
    }


PREEMPTION = Task(
    id="ex03.3",
    title="preemption by recompute",
    function="preempt",
    cases=_short_of_memory,
    smaller=_smaller_cars,
    due=_due_car,
    read=_read_car,
    properties=(
        Property("nobody is lost and nobody is counted twice", _none_lost),
        Property("whoever stays on board keeps all that they have", _stay_as_they_are),
        Property("the blocks of the thrown out come back", _blocks_come_back),
        Property("those who stay can grow", _can_grow),
        Property("nobody is thrown out without need", _without_need),
        Property("the last in is the first out", _last_in_first_out),
        Property(
            "the thrown out go to the front of the queue, in the order in which they rode", _front_of_queue
        ),
        Property("generated tokens are kept", _generated_kept),
        Property("what was computed is computed again", _computed_again),
        Property(LAST_FIRST, _freed_last_first),
    ),
    explain=_explain_car,
    rides=_car_rides,
    built_on=("ex03.1",),
)


# ----- ex03.4 -----

DIGITS = 64  # of a sha256


def _texts(rng: Random) -> Iterator[Given]:
    """Prompts after other prompts, short ones first; then what each block's hash is."""
    yield {"tokens": [1], "salt": "", "earlier": [], "block_size": 1}
    yield from (_text(rng, block_size - 1, "", block_size) for block_size in (2, 3, 4))
    for size in (1, 2):
        yield from _meant_to_mislead(size)
    for block_size, length in product((1, 2), (1, 2, 3, 4)):
        for salts in (("", ""), ("a", "a"), ("a", "b"), ("", "a")):
            yield _prompt_after(rng, 1, length, block_size, salts)
            yield _prompt_after(rng, 2, length, block_size, salts)
    for _ in range(DRAWN):
        yield _prompt_after(rng, rng.randint(0, 4), rng.randint(1, 20), rng.choice((2, 3, 4)), ("", "a", "b"))
    for length, block_size in product((1, 2, 3, 5), (1, 2)):
        for salt in ("", "a"):
            yield _text(rng, length, salt, block_size)
    for _ in range(DRAWN):
        yield _text(rng, rng.randint(1, 40), rng.choice(("", "tenant")), rng.choice((3, 4, 16)))


def _meant_to_mislead(size: int) -> Iterator[Given]:
    """The same prompt again; its second block behind another first one; its second and third so.

    And blocks that end alike, and the same prompt before and after one of which nothing is shared.
    """
    first, second, third, other = ([token] * size for token in (1, 2, 3, 4))
    for tokens, *texts in (
        (first + second, first + second),
        (first + second, other[1:] + first[:1] + second),
        (first + second + third, other + second + third),
        (first + second + third + other, first + second, other + second + third),
        (first + second, other + third, first + second),
        (first + second, first + second, other + third),
    ):
        for salt in ("", "a"):
            earlier = [(text, salt) for text in texts]
            yield {"tokens": tokens, "salt": salt, "earlier": earlier, "block_size": size}


def _text(rng: Random, length: int, salt: str, block_size: int) -> Given:
    tokens = [rng.randrange(300, 50_000) for _ in range(length)]
    return {"tokens": tokens, "salt": salt, "block_size": block_size}


def _bits(rng: Random, length: int) -> list[int]:
    """Tokens that often agree by chance."""
    return [rng.randrange(2) for _ in range(length)]


def _prompt_after(rng: Random, many: int, length: int, block_size: int, salts: tuple[str, ...]) -> Given:
    """A prompt after so many others, some of which begin like it, or go on like it behind another word."""
    tokens = _bits(rng, length)
    earlier = []
    for _ in range(many):
        alike = rng.choice((length, rng.randint(0, length)))
        text = tokens[:alike] + _bits(rng, rng.randint(0, block_size)) or [1]
        if rng.random() < 0.3:
            text[0] = 1 - text[0]
        earlier.append((text, rng.choice(salts[1:])))
    return {"tokens": tokens, "salt": salts[0], "earlier": earlier, "block_size": block_size}


def _smaller_texts(given: Given) -> Iterator[Given]:
    if "earlier" in given:
        yield from fewer(given, "earlier")
        for place, (text, salt) in enumerate(given["earlier"]):
            if len(text) > 1:
                others = given["earlier"]
                yield {**given, "earlier": [*others[:place], (text[:-1], salt), *others[place + 1 :]]}
    if len(given["tokens"]) > 1:
        yield {**given, "tokens": given["tokens"][:-1]}
    yield from lower(given, "block_size", 1)
    for place, token in enumerate(given["tokens"]):
        if token > 300:
            yield {**given, "tokens": [*given["tokens"][:place], 300, *given["tokens"][place + 1 :]]}


def _due_texts(
    tokens: list[int], salt: str, block_size: int, earlier: list[tuple[list[int], str]] | None = None
) -> Any:
    """What `KVCache` finds once the earlier texts are stored; without any, `block_hash` along the text."""
    if earlier is None:
        return _chain(tokens, salt, block_size)
    texts = [*earlier, (tokens, salt)]
    num_blocks = 1 + sum(_blocks_for(len(text), block_size) for text, _ in texts)
    cache = KVCache(BlockPool(num_blocks, block_size), prefix_caching=True)
    states = [RequestState("", len(text), 1, token_ids=list(text), salt=tenant) for text, tenant in texts]
    for state in states[:-1]:
        cache.allocate(state, state.prompt_tokens, cache.cached_prefix(state))
        cache.commit(state, state.prompt_tokens)
    return len(cache.cached_prefix(states[-1])) * block_size


def _chain(tokens: list[int], salt: str, block_size: int) -> list[str]:
    parent, hashes = hashlib.sha256(salt.encode()).digest(), []
    for start in range(0, len(tokens) - block_size + 1, block_size):
        parent = block_hash(parent, tokens[start : start + block_size])
        hashes.append(parent.hex())
    return hashes


def _read_texts(answer: Any, given: Given) -> Any:
    if "earlier" in given:
        return whole(answer, "the number of tokens")
    if not isinstance(answer, list | tuple):
        raise WrongForm(f"the hashes should be a list; what came back is {kind(answer)}.")
    for digest in answer:
        if not isinstance(digest, str):
            raise WrongForm(f"each hash should be a string; {show(digest)} is {kind(digest)}.")
        if len(digest) != DIGITS:
            raise WrongForm(f"each hash should have {DIGITS} digits; {show(digest)} has {len(digest)}.")
    return list(answer)


def _hits_are_full_blocks(given: Given, answer: Any, due: Any) -> bool:
    return "earlier" not in given or answer % given["block_size"] == 0


def _one_left(given: Given, answer: Any, due: Any) -> bool:
    return "earlier" not in given or answer < len(given["tokens"])


def _salts_apart(given: Given, answer: Any, due: Any) -> bool:
    """Looks only where nobody has stored anything under this salt."""
    if "earlier" not in given or any(salt == given["salt"] for _, salt in given["earlier"]):
        return True
    return answer <= 0


def _all_before_agrees(given: Given, answer: Any, due: Any) -> bool:
    return "earlier" not in given or answer <= due


def _found(given: Given, answer: Any, due: Any) -> bool:
    return "earlier" not in given or answer == due


def _full_blocks_hashed(given: Given, answer: Any, due: Any) -> bool:
    return "earlier" in given or len(answer) == len(due)


def _exact_hash(given: Given, answer: Any, due: Any) -> bool:
    return answer == due


def _explain_texts(given: Given, due: Any) -> str:
    return ""


PREFIXES = Task(
    id="ex03.4",
    title="a chain of hashes",
    function="cached_tokens",
    cases=_texts,
    smaller=_smaller_texts,
    due=_due_texts,
    read=_read_texts,
    properties=(
        Property("only full blocks are shared", _hits_are_full_blocks),
        Property("at least one token is left to compute", _one_left),
        Property("nothing is shared between salts", _salts_apart),
        Property("a block is a hit only where all before it agrees", _all_before_agrees),
        Property("whatever is stored is found", _found),
        Property("only full blocks have a hash", _full_blocks_hashed),
        Property("a hash is the sha256 of the parent and the tokens, from the salt on", _exact_hash),
    ),
    explain=_explain_texts,
    others={"block_hashes": ("tokens", "salt", "block_size")},
)

EX03 = Exercise("ex03", (MEMORY, ADMISSION, PREEMPTION, PREFIXES))
