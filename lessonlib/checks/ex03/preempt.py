"""ex03.3: which requests are preempted when blocks run out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any, NamedTuple

from lessonlib.checks.cases import DRAWN, fewer
from lessonlib.checks.ex03.allocate import expected_memory
from lessonlib.checks.ex03.blocks import LAST_FIRST, block_ids, blocks_for, pool_with
from lessonlib.checks.replay import Moment, before_and_after, both
from lessonlib.checks.spec import Given, Task, WrongForm, count, kind, parts, promise, show, whole, whole_list
from lessonlib.scheduling.kv_cache import KVCache
from lessonlib.scheduling.request import RequestState, RequestStatus
from lessonlib.scheduling.scheduler import Scheduler
from lessonlib.trace import Trace

Request = dict[str, Any]


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
    sizes = [blocks_for(computed, block_size) for _, _, computed in riders]
    blocks = iter(block_ids(rng, sum(sizes) + num_free))
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
        for index, request in enumerate(given[name]):
            for shorter in _shorter(request, given["block_size"]):
                car = {**given, name: [*given[name][:index], shorter, *given[name][index + 1 :]]}
                if _each_fits_alone(car):
                    yield car


def _shorter(request: Request, block_size: int) -> Iterator[Request]:
    """The same request one token, or one block, shorter."""
    on_board = bool(request["table"])
    for name, gone in product(("generated", "prompt"), (1, block_size)):
        least = 1 if name == "prompt" or on_board else 0
        computed = max(0, request["computed"] - gone)
        if request[name] - gone >= least and (computed or not on_board):
            table = request["table"][: blocks_for(computed, block_size)]
            yield {**request, name: request[name] - gone, "computed": computed, "table": table}


def _each_fits_alone(given: Given) -> bool:
    memory = len(given["free"]) + sum(len(request["table"]) for request in given["running"])
    needed = [blocks_for(request["computed"] + 1, given["block_size"]) for request in given["running"]]
    return max(needed) <= memory


def _expected_car(running: list[Request], waiting: list[Request], free: list[int], block_size: int) -> Car:
    """Whom `Scheduler.schedule` throws out; in what order their blocks are freed, `_due_memory` says."""
    pool = pool_with(free, [block for request in running for block in request["table"]])
    pool.block_size, pool.hashes = block_size, [None] * pool.num_blocks
    scheduler = Scheduler(len(running), kv_cache=KVCache(pool))
    names = {str(request["id"]): request for request in running}
    for index, (name, request) in enumerate(names.items()):
        scheduler.running.append(
            RequestState(
                name,
                request["prompt"],
                request["generated"] + 2,  # it wants more than this step gives
                order=index,
                status=RequestStatus.RUNNING,
                slot=index,
                block_table=list(request["table"]),
                num_computed_tokens=request["computed"],
                num_output_tokens=request["generated"],
            )
        )
    plan = scheduler.schedule()
    for state in plan.preempted:
        free = expected_memory(free, names[state.id]["table"])
    front = [
        {**names[state.id], "generated": state.num_output_tokens, "computed": 0, "table": []}
        for state in scheduler.waiting.in_order()[: len(plan.preempted)]
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


@promise("nobody is lost and nobody is counted twice")
def _none_lost(given: Given, answer: Car, expected: Car) -> bool:
    return sorted(_names(answer.running + answer.waiting)) == sorted(
        _names(expected.running + expected.waiting)
    )


@promise("whoever stays on board keeps all that they have")
def _stay_as_they_are(given: Given, answer: Car, expected: Car) -> bool:
    before = {request["id"]: request for request in given["running"]}
    return all(before.get(request["id"]) == request for request in answer.running)


@promise("the blocks of the thrown out come back")
def _blocks_come_back(given: Given, answer: Car, expected: Car) -> bool:
    """Whoever waits holds nothing, and nothing that is free is held."""
    tables = [block for request in answer.running for block in request["table"]]
    blocks = [block for request in given["running"] for block in request["table"]]
    waits_empty = not any(request["table"] for request in answer.waiting)
    return waits_empty and sorted(tables + answer.free) == sorted(blocks + given["free"])


@promise("those who stay can grow")
def _can_grow(given: Given, answer: Car, expected: Car) -> bool:
    return _full_tables(answer.running, given["block_size"]) <= len(answer.free)


def _full_tables(running: list[Request], block_size: int) -> int:
    return sum(request["computed"] == len(request["table"]) * block_size for request in running)


@promise("nobody is thrown out without need")
def _without_need(given: Given, answer: Car, expected: Car) -> bool:
    return len(answer.running) >= len(expected.running)


@promise("the last in is the first out")
def _last_in_first_out(given: Given, answer: Car, expected: Car) -> bool:
    return answer.running == expected.running


@promise("the thrown out go to the front of the queue, in the order in which they rode")
def _front_of_queue(given: Given, answer: Car, expected: Car) -> bool:
    return _names(answer.waiting) == _names(expected.waiting)


@promise("generated tokens are kept")
def _generated_kept(given: Given, answer: Car, expected: Car) -> bool:
    kept = "prompt", "generated"
    return _of_each(answer.waiting, *kept) == _of_each(expected.waiting, *kept)


@promise("what was computed is computed again")
def _computed_again(given: Given, answer: Car, expected: Car) -> bool:
    return answer.waiting == expected.waiting


@promise(LAST_FIRST)
def _freed_last_first(given: Given, answer: Car, expected: Car) -> bool:
    return answer == expected


def _explain_car(given: Given, expected: Car) -> str:
    full = _full_tables(given["running"], given["block_size"])
    return f"{count(full, 'table')} full, {count(len(given['free']), 'block')} free"


def _car_rides(given: Given, answer: Car | None, expected: Car) -> dict[str, Trace]:
    """The car before and after; whoever stays keeps their slot."""
    slots = {request["id"]: slot for slot, request in enumerate(given["running"])}

    def moment(car: Car) -> Moment:
        seats = {slots[request["id"]]: request["id"] for request in car.running}
        blocks = {request["id"]: len(request["table"]) for request in car.running}
        return Moment(seats, _names(car.waiting), blocks, len(car.free))

    before = moment(Car(given["running"], given["waiting"], given["free"]))
    return both(
        answer,
        expected,
        lambda car: before_and_after(len(slots), before, moment(car), block_size=given["block_size"]),
    )


PREEMPTION = Task(
    id="ex03.3",
    title="preemption by recompute",
    function="preempt",
    cases=_short_of_memory,
    smaller=_smaller_cars,
    expected=_expected_car,
    read=_read_car,
    properties=(
        _none_lost,
        _stay_as_they_are,
        _blocks_come_back,
        _can_grow,
        _without_need,
        _last_in_first_out,
        _front_of_queue,
        _generated_kept,
        _computed_again,
        _freed_last_first,
    ),
    explain=_explain_car,
    rides=_car_rides,
    built_on=("ex03.1",),
    hints=(
        "How many blocks will this step ask for? Count the full tables of those who are on board.",
        "A table is full where computed == len(table) * block_size. While more are full than blocks are free, "
        "the last of `running` goes, and with it its own demand.",
        "In the loop: last = running.pop(); free = release(free, last['table']); waiting.insert(0, {**last, "
        "'computed': 0, 'table': []}). Work on copies of both lists, and leave `generated` alone.",
    ),
)
