"""What exercise 02 must do: the parts of the waitlist scheduler.

The state of the car is `occupant` and `remaining` (int64 `[slots]`, NOBODY and 0 in a free slot), `waitlist`
(request ids, next to board first) and `lengths` (tokens of each request, by id).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any, NamedTuple

import numpy as np

from lessonlib.checks.replay import CAME_BACK, DUE, Moment, before_and_after, whole_ride
from lessonlib.checks.rides import DRAWN, lengths_and_slots, smaller_lengths, without
from lessonlib.checks.spec import (
    Exercise,
    Given,
    Parts,
    Property,
    Task,
    close,
    count,
    number,
    parts,
    whole,
    whole_list,
)
from lessonlib.simulation.slots import CONTINUOUS, NOBODY, STATIC, SlotScheduler, ride
from lessonlib.trace import Trace
from lessonlib.workload import Workload


class Car(NamedTuple):
    """The state after a part has run; `rest` is the waitlist of ex02.1 and the tokens of ex02.2."""

    occupant: list[int]
    remaining: list[int]
    rest: Any


def _free(given: Given) -> list[int]:
    return np.flatnonzero(given["occupant"] == NOBODY).tolist()


def _taken(given: Given) -> list[int]:
    return np.flatnonzero(given["occupant"] != NOBODY).tolist()


# ----- ex02.1 -----


def _refills(rng: Random) -> Iterator[Given]:
    """Every pattern of up to 3 slots with up to 3 waiting; then larger cars with ids in any order."""
    for slots, waiting in product((1, 2, 3), (0, 1, 2, 3)):
        for pattern in product((False, True), repeat=slots):
            yield _car_to_refill(rng, pattern, list(range(sum(pattern) + waiting)))
    for _ in range(30):
        pattern = tuple(rng.random() < 0.5 for _ in range(rng.randint(1, 10)))
        ids = list(range(sum(pattern) + rng.randint(0, 12)))
        rng.shuffle(ids)
        yield _car_to_refill(rng, pattern, ids)


def _car_to_refill(rng: Random, pattern: tuple[bool, ...], ids: list[int]) -> Given:
    """A car with someone in each slot where `pattern` says so; the ids that are left over wait, in order."""
    lengths = [rng.randint(1, 9) for _ in ids]
    occupant, remaining = [NOBODY] * len(pattern), [0] * len(pattern)
    waitlist = list(ids)
    for slot, taken in enumerate(pattern):
        if taken:
            occupant[slot] = waitlist.pop(0)
            remaining[slot] = rng.randint(1, lengths[occupant[slot]])
    return {
        "occupant": np.array(occupant),
        "remaining": np.array(remaining),
        "waitlist": waitlist,
        "lengths": np.array(lengths, np.int64),
    }


def _fewer_slots(given: Given) -> Iterator[Given]:
    """The same car with one slot less, whoever sat there gone."""
    for slot in range(len(given["occupant"]) if len(given["occupant"]) > 1 else 0):
        arrays = {name: np.delete(given[name], slot) for name in ("occupant", "remaining")}
        yield {**given, **arrays}


def _smaller_refills(given: Given) -> Iterator[Given]:
    yield from _fewer_slots(given)
    for place in range(len(given["waitlist"])):
        yield {**given, "waitlist": without(given["waitlist"], place)}
    yield from _renumbered(given)


def _renumbered(given: Given) -> Iterator[Given]:
    """The same car without the requests that neither ride nor wait, where there are any."""
    used = sorted([*given["occupant"][_taken(given)].tolist(), *given["waitlist"]])
    if len(used) < len(given["lengths"]):
        new = {NOBODY: NOBODY} | {old: place for place, old in enumerate(used)}
        yield {
            "occupant": np.array([new[old] for old in given["occupant"].tolist()]),
            "remaining": given["remaining"],
            "waitlist": [new[old] for old in given["waitlist"]],
            "lengths": given["lengths"][used],
        }


def _due_refill(occupant: np.ndarray, remaining: np.ndarray, waitlist: list[int], lengths: np.ndarray) -> Car:
    """What `SlotScheduler.admit` does, for which those who wait are requests 0, 1, 2, …"""
    if not waitlist:
        return Car(occupant.tolist(), remaining.tolist(), [])
    scheduler = SlotScheduler(Workload.from_lengths(lengths[waitlist]), len(occupant))
    scheduler.occupant[:], scheduler.remaining[:] = occupant, remaining
    scheduler.admit()
    boarded = (occupant == NOBODY) & (scheduler.occupant != NOBODY)
    scheduler.occupant[boarded] = np.array(waitlist)[scheduler.occupant[boarded]]
    return Car(scheduler.occupant.tolist(), scheduler.remaining.tolist(), waitlist[scheduler.next_request :])


def _read_refill(answer: Any, given: Given) -> Car:
    occupant, remaining, waitlist = parts(answer, ("occupant", "remaining", "waitlist"))
    slots = len(given["occupant"])
    return Car(
        whole_list(occupant, "occupant", slots),
        whole_list(remaining, "remaining", slots),
        whole_list(waitlist, "waitlist"),
    )


def _boarded(given: Given, answer: Car) -> list[int]:
    """Who sits in the slots that were free, lowest slot first."""
    return [answer.occupant[slot] for slot in _free(given) if answer.occupant[slot] != NOBODY]


def _keep_their_slot(given: Given, answer: Car, due: Car) -> bool:
    return all(
        answer.occupant[slot] == due.occupant[slot] and answer.remaining[slot] == due.remaining[slot]
        for slot in _taken(given)
    )


def _refilled(given: Given, answer: Car, due: Car) -> bool:
    return len(_boarded(given, answer)) >= len(_boarded(given, due))


def _no_longer_waits(given: Given, answer: Car, due: Car) -> bool:
    return sorted(_boarded(given, answer) + answer.rest) == sorted(given["waitlist"])


def _first_come(given: Given, answer: Car, due: Car) -> bool:
    return sorted(_boarded(given, answer)) == sorted(_boarded(given, due)) and answer.rest == due.rest


def _lowest_first(given: Given, answer: Car, due: Car) -> bool:
    return answer.occupant == due.occupant


def _whole_length(given: Given, answer: Car, due: Car) -> bool:
    return answer.remaining == due.remaining


def _rides(given: Given, answer: Car | None, due: Car) -> dict[str, Trace]:
    """The car before, and after what came back or after what was due."""
    waitlist, slots = given.get("waitlist", []), len(given["occupant"])
    before = Moment(_seats(given["occupant"].tolist()), waitlist)
    cars = {CAME_BACK: answer, DUE: due}
    return {
        name: before_and_after(
            slots, before, Moment(_seats(car.occupant), car.rest if "waitlist" in given else [])
        )
        for name, car in cars.items()
        if car is not None
    }


def _seats(occupant: list[int]) -> dict[int, int]:
    return {slot: request for slot, request in enumerate(occupant) if request != NOBODY}


def _nothing_to_explain(given: Given, due: Any) -> str:
    return ""


REFILL = Task(
    id="ex02.1",
    title="refill the free slots",
    function="refill",
    cases=_refills,
    smaller=_smaller_refills,
    due=_due_refill,
    read=_read_refill,
    properties=(
        Property("whoever is on board keeps their slot", _keep_their_slot),
        Property("a freed slot is refilled for the next step", _refilled),
        Property("who has boarded no longer waits", _no_longer_waits),
        Property("first come, first served", _first_come),
        Property("the lowest free slot is filled first", _lowest_first),
        Property("a new request has its whole length to go", _whole_length),
    ),
    explain=_nothing_to_explain,
    rides=_rides,
)


# ----- ex02.2 -----


def _steps(rng: Random) -> Iterator[Given]:
    """Every car of up to 3 slots with up to 2 tokens to go in each; then larger ones."""
    for slots in (1, 2, 3):
        for remaining in sorted(product((0, 1, 2), repeat=slots), key=sum):
            yield _car_to_step(list(remaining), list(range(slots)))
    for _ in range(30):
        slots = rng.randint(1, 12)
        yield _car_to_step([rng.choice((0, 1, 2, 9)) for _ in range(slots)], rng.sample(range(40), slots))


def _car_to_step(remaining: list[int], ids: list[int]) -> Given:
    occupant = [request if left else NOBODY for request, left in zip(ids, remaining, strict=True)]
    return {"occupant": np.array(occupant), "remaining": np.array(remaining)}


def _due_step(occupant: np.ndarray, remaining: np.ndarray) -> Car:
    """What `SlotScheduler.step` and then `evict` do."""
    scheduler = SlotScheduler(Workload.from_lengths([1]), len(occupant))
    scheduler.occupant[:], scheduler.remaining[:] = occupant, remaining
    scheduler.step()
    scheduler.evict()
    return Car(scheduler.occupant.tolist(), scheduler.remaining.tolist(), int((occupant != NOBODY).sum()))


def _read_step(answer: Any, given: Given) -> Car:
    occupant, remaining, tokens = parts(answer, ("occupant", "remaining", "tokens"))
    slots = len(given["occupant"])
    return Car(
        whole_list(occupant, "occupant", slots),
        whole_list(remaining, "remaining", slots),
        whole(tokens, "tokens"),
    )


def _one_token_each(given: Given, answer: Car, due: Car) -> bool:
    return all(answer.remaining[slot] == due.remaining[slot] for slot in _taken(given))


def _empty_stays_empty(given: Given, answer: Car, due: Car) -> bool:
    return all(answer.occupant[slot] == NOBODY and answer.remaining[slot] == 0 for slot in _free(given))


def _last_token_leaves(given: Given, answer: Car, due: Car) -> bool:
    return all(answer.occupant[slot] == NOBODY for slot in _taken(given) if due.remaining[slot] == 0)


def _others_stay(given: Given, answer: Car, due: Car) -> bool:
    return answer.occupant == due.occupant


def _tokens_are_riders(given: Given, answer: Car, due: Car) -> bool:
    return answer.rest == due.rest


STEP = Task(
    id="ex02.2",
    title="one decoding step",
    function="step",
    cases=_steps,
    smaller=_fewer_slots,
    due=_due_step,
    read=_read_step,
    properties=(
        Property("everyone on board gets one token", _one_token_each),
        Property("an empty slot stays empty", _empty_stays_empty),
        Property("whoever has their last token leaves the slot free", _last_token_leaves),
        Property("whoever still wants tokens stays", _others_stay),
        Property("the tokens given are those who rode", _tokens_are_riders),
    ),
    explain=_nothing_to_explain,
    rides=_rides,
)


# ----- ex02.3 -----

LOOP_PARTS = ("refill", "step")


def _static_rides(rng: Random) -> Iterator[Given]:
    for given in lengths_and_slots(rng):
        yield _with_array(given)


def _smaller_static_rides(given: Given) -> Iterator[Given]:
    for smaller in smaller_lengths({**given, "lengths": given["lengths"].tolist()}):
        yield _with_array(smaller)


def _with_array(given: Given) -> Given:
    return {**given, "lengths": np.array(given["lengths"])}


def _due_static(lengths: np.ndarray, slots: int) -> tuple[int, float]:
    trace = ride(Workload.from_lengths(lengths), slots, STATIC)
    return trace.num_steps, trace.utilization


def _read_static(answer: Any, given: Given) -> tuple[int, float]:
    steps, utilization = parts(answer, ("steps", "utilization"))
    return whole(steps, "steps"), number(utilization, "utilization")


def _board_an_empty_car(given: Given, answer: tuple[int, float], due: tuple[int, float]) -> bool:
    return answer[0] >= due[0]


def _board_at_once(given: Given, answer: tuple[int, float], due: tuple[int, float]) -> bool:
    return answer[0] <= due[0]


def _utilization_follows(given: Given, answer: tuple[int, float], due: tuple[int, float]) -> bool:
    return close(answer[1], due[1])


def _explain_static(given: Given, due: tuple[int, float]) -> str:
    tokens = count(int(given["lengths"].sum()), "token")
    return f"utilization is {tokens} ÷ ({count(given['slots'], 'slot')} × {count(due[0], 'step')})"


def _batches_and_steps(given: Given, due: tuple[int, float]) -> tuple[int, int]:
    """A batch is one call of `refill` at least, and each step one of `step`."""
    return -(-len(given["lengths"]) // given["slots"]), due[0]


STATIC_BATCHING = Task(
    id="ex02.3",
    title="static batching with the same parts",
    function="static_batching",
    cases=_static_rides,
    smaller=_smaller_static_rides,
    due=_due_static,
    read=_read_static,
    properties=(
        Property("nobody boards until the car is empty", _board_an_empty_car),
        Property("the next batch boards as soon as the car is empty", _board_at_once),
        Property("utilization is tokens given over slots times steps", _utilization_follows),
    ),
    explain=_explain_static,
    rides=whole_ride(STATIC),
    built_on=("ex02.1", "ex02.2"),
    made_of=Parts("the ride is made of refill and step", LOOP_PARTS, _batches_and_steps),
)


# ----- ex02.4 -----


def _rides_with_arrivals(rng: Random) -> Iterator[Given]:
    """Every ride of up to 3 short requests in up to 2 slots, smallest first; then longer ones as drawn."""
    small = [
        _arriving(list(lengths), [0, *gaps], slots)
        for many in (1, 2, 3)
        for lengths in product((1, 2), repeat=many)
        for gaps in product((0, 1, 3), repeat=many - 1)
        for slots in (1, 2)
    ]
    yield from sorted(small, key=_size_with_arrivals)
    for _ in range(DRAWN):
        many, slots = rng.randint(4, 40), rng.randint(1, 12)
        longest, widest = rng.choice((4, 12, 60)), rng.choice((1, 4, 20))
        gaps = [0] + [rng.randint(0, widest) for _ in range(many - 1)]
        yield _arriving([rng.randint(1, longest) for _ in gaps], gaps, slots)


def _arriving(lengths: list[int], gaps: list[int], slots: int) -> Given:
    """Each request arrives so many steps after the one before; the first one as the clock starts."""
    return {"lengths": np.array(lengths), "arrivals": np.cumsum([0, *gaps[1:]]), "slots": slots}


def _size_with_arrivals(given: Given) -> tuple[int, int, int]:
    return len(given["lengths"]), int(given["lengths"].sum() + given["arrivals"][-1]), given["slots"]


def _smaller_rides_with_arrivals(given: Given) -> Iterator[Given]:
    """One request less, one slot less, one request shorter, or one that comes sooner after the one before."""
    lengths, slots = given["lengths"].tolist(), given["slots"]
    gaps = np.diff(given["arrivals"], prepend=0).tolist()
    for place in range(len(lengths) if len(lengths) > 1 else 0):
        yield _arriving(without(lengths, place), without(gaps, place), slots)
    if slots > 1:
        yield _arriving(lengths, gaps, slots - 1)
    for place in range(len(lengths)):
        for shorter in {1, lengths[place] - 1} - {0, lengths[place]}:
            yield _arriving([*lengths[:place], shorter, *lengths[place + 1 :]], gaps, slots)
        for sooner in {0, gaps[place] - 1} - {-1, gaps[place]}:
            yield _arriving(lengths, [*gaps[:place], sooner, *gaps[place + 1 :]], slots)


def _due_ttft(lengths: np.ndarray, arrivals: np.ndarray, slots: int) -> list[int]:
    trace = ride(Workload.from_lengths(lengths, arrival_time=arrivals), slots, CONTINUOUS)
    return trace.first_token_time().astype(int).tolist()


def _read_ttft(answer: Any, given: Given) -> list[int]:
    return whole_list(answer, "ttft", len(given["lengths"]), each="request")


def _at(given: Given, ttft: list[int]) -> list[int]:
    """The clock as each request gets its first token."""
    return (np.array(ttft) + given["arrivals"]).tolist()


def _end_of_step(given: Given, answer: list[int], due: list[int]) -> bool:
    return len(answer) > 1 or answer == due


def _from_arrival(given: Given, answer: list[int], due: list[int]) -> bool:
    """Looks at rides in which everybody rides alone: elsewhere a wait could look the same."""
    gaps = np.diff(given["arrivals"])
    rides_alone = len(gaps) > 0 and (gaps >= given["lengths"][:-1]).all()
    return not rides_alone or answer != _at(given, due)


def _after_arrival(given: Given, answer: list[int], due: list[int]) -> bool:
    return min(answer) > 0


def _in_order(given: Given, answer: list[int], due: list[int]) -> bool:
    return _at(given, answer) == sorted(_at(given, answer))


def _no_more_than_slots(given: Given, answer: list[int], due: list[int]) -> bool:
    return all(there >= right for there, right in zip(answer, due, strict=True))


def _taken_at_once(given: Given, answer: list[int], due: list[int]) -> bool:
    return answer == due


def _steps_in_which_some_board(given: Given, due: list[int]) -> tuple[int, int]:
    """Each of them needs both parts."""
    boarding = len(set(_at(given, due)))
    return boarding, boarding


CONTINUOUS_BATCHING = Task(
    id="ex02.4",
    title="the continuous loop, with arrivals",
    function="continuous_batching",
    cases=_rides_with_arrivals,
    smaller=_smaller_rides_with_arrivals,
    due=_due_ttft,
    read=_read_ttft,
    properties=(
        Property("a token is there when its step ends", _end_of_step),
        Property("the time counts from the request's own arrival", _from_arrival),
        Property("nobody boards before they have arrived", _after_arrival),
        Property("first come, first served", _in_order),
        Property("no more ride at once than there are slots", _no_more_than_slots),
        Property("a free slot is taken for the next step while anybody waits", _taken_at_once),
    ),
    explain=_nothing_to_explain,
    rides=whole_ride(CONTINUOUS),
    built_on=("ex02.1", "ex02.2"),
    made_of=Parts("the loop is made of refill and step", LOOP_PARTS, _steps_in_which_some_board),
)

EX02 = Exercise("ex02", (REFILL, STEP, STATIC_BATCHING, CONTINUOUS_BATCHING), packages=("numpy",))
