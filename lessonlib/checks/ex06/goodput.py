"""ex06.1: utilization, and how many requests a second got what they had been promised."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from lessonlib.checks.cases import DRAWN, fewer, lower
from lessonlib.checks.spec import Given, Task, close, count, number, parts, promise, whole_list

TICK = 0.125  # seconds; sums and comparisons of whole ticks are exact


class Served(NamedTuple):
    """What `goodput` answers."""

    utilization: float
    kept: list[int]
    goodput: float


def _rides(rng: Random) -> Iterator[Given]:
    """One request in every way that it can go, then a few, then fuller cars."""
    yield from _alone()
    for _ in range(DRAWN):
        yield _ride(rng, slots=rng.randint(1, 3), many=rng.randint(1, 4), longest=4)
    for _ in range(DRAWN):
        yield _ride(rng, slots=rng.randint(2, 6), many=rng.randint(5, 20), longest=9)


def _alone() -> Iterator[Given]:
    """The smallest rides that show each rule: steps of a second from second 1 on, but where a pause is told."""
    even = [[1.0 + at, 1.0] for at in range(4)]
    uneven = [[1.0, 1.0], [2.0, 1.0], [3.0, 1.0], [4.0, 3.0]]
    pause = [[1.0, 1.0], [2.0, 1.0], [5.0, 1.0], [6.0, 1.0]]
    for steps, arrival, decode, finished, limits in (
        (even, 1.0, [[0, 4]], True, (9.0, 9.0)),
        (even, 1.0, [[0, 4]], True, (1.0, 9.0)),  # in time by the end of its step, to the very second
        (even, 1.0, [[1, 3]], True, (1.5, 9.0)),  # in time by the start of its step only
        (even, 0.0, [[0, 4]], True, (1.0, 9.0)),  # late, counted from the arrival
        (even, 2.0, [[1, 3]], True, (1.0, 9.0)),  # in time, counted from the arrival
        (even, 1.0, [[0, 3]], False, (9.0, 9.0)),
        (even, 1.0, [], False, (9.0, 9.0)),
        (even, 1.0, [[0, 4]], True, (9.0, 1.0)),  # kept to the very second
        (even, 1.0, [[0, 4]], True, (9.0, 0.875)),
        (even, 1.0, [[0, 2], [3, 1]], True, (9.0, 1.25)),  # thrown out for a step
        (uneven, 1.0, [[0, 4]], True, (9.0, 1.5)),  # in time from start to start only
        (pause, 1.0, [[0, 4]], True, (9.0, 1.5)),
        (pause, 1.0, [[0, 4]], True, (9.0, 2.0)),
        (even, 1.0, [[0, 1]], True, (1.0, 0.25)),  # one token
    ):
        request = {"arrival": arrival, "decode": decode, "finished": finished}
        yield _given(2, steps, [request], *limits)


def _given(
    slots: int, steps: list[list[float]], requests: list[dict[str, Any]], ttft_limit: float, tpot_limit: float
) -> Given:
    return {
        "slots": slots,
        "steps": steps,
        "requests": requests,
        "ttft_limit": ttft_limit,
        "tpot_limit": tpot_limit,
    }


def _ride(rng: Random, slots: int, many: int, longest: int) -> Given:
    """Riders who come, read, write, are thrown out and come back, give up, arrive."""
    steps: list[list[float]] = []
    requests: list[dict[str, Any]] = [
        {"arrival": rng.randint(0, 8 * many) * TICK, "decode": [], "finished": False} for _ in range(many)
    ]
    requests.sort(key=lambda request: request["arrival"])
    wants = [rng.choice((1, rng.randint(1, longest))) for _ in requests]
    waiting, riding, now = list(range(many)), set[int](), rng.randint(0, 8) * TICK
    while waiting or riding:
        if not riding:
            now = max(now, requests[waiting[0]]["arrival"])
        duration = rng.randint(1, 6) * TICK
        while waiting and len(riding) < slots and requests[waiting[0]]["arrival"] <= now:
            riding.add(waiting.pop(0))
        for index in sorted(riding):
            chance = rng.random()
            if chance < 0.1:  # reads, or is thrown out and comes back
                continue
            if chance < 0.14:  # gives up
                riding.discard(index)
                continue
            _gets_token(requests[index], len(steps))
            if _tokens(requests[index]) == wants[index]:
                requests[index]["finished"] = True
                riding.discard(index)
        steps.append([now, duration])
        now += duration + rng.choice((0, 0, 1)) * TICK
    return _given(slots, steps, requests, rng.randint(2, 24) * TICK, rng.randint(2, 10) * TICK)


def _gets_token(request: dict[str, Any], step: int) -> None:
    runs = request["decode"]
    if runs and sum(runs[-1]) == step:
        runs[-1][1] += 1
    else:
        runs.append([step, 1])


def _tokens(request: dict[str, Any]) -> int:
    return sum(tokens for _, tokens in request["decode"])


def _smaller_rides(given: Given) -> Iterator[Given]:
    """A request less, a slot less, or a step less at the end that gave nobody anything."""
    yield from fewer(given, "requests", least=1)
    yield from lower(given, "slots", 1)
    last = len(given["steps"]) - 1
    if last and not any(sum(run) > last for request in given["requests"] for run in request["decode"]):
        yield {**given, "steps": given["steps"][:-1]}


def _times(given: Given, request: dict[str, Any]) -> list[float]:
    """When each of a request's tokens was there."""
    steps = given["steps"]
    return [sum(steps[step]) for first, tokens in request["decode"] for step in range(first, first + tokens)]


class Waits(NamedTuple):
    """Whether each promise was kept; a time per token of one token alone is always kept."""

    ttft: bool
    tpot: bool


def _waits(given: Given, request: dict[str, Any]) -> Waits:
    times = _times(given, request)
    gaps = len(times) - 1
    in_time = times[-1] - times[0] <= gaps * given["tpot_limit"]
    return Waits(times[0] - request["arrival"] <= given["ttft_limit"], in_time)


def _expected_ride(**given: Any) -> Served:
    steps, requests = given["steps"], given["requests"]
    kept = [
        index for index, request in enumerate(requests) if request["finished"] and all(_waits(given, request))
    ]
    span = sum(steps[-1]) - steps[0][0]
    tokens = sum(map(_tokens, requests))
    return Served(tokens / (given["slots"] * len(steps)), kept, len(kept) / span)


def _read_ride(answer: Any, given: Given) -> Served:
    utilization, kept, per_second = parts(answer, Served._fields)
    return Served(
        number(utilization, "utilization"), sorted(whole_list(kept, "kept")), number(per_second, "goodput")
    )


def _right_for(given: Given, answer: Served, expected: Served, indices: Iterator[int]) -> bool:
    return all((index in answer.kept) == (index in expected.kept) for index in indices)


def _finished(given: Given) -> Iterator[tuple[int, dict[str, Any]]]:
    return ((index, each) for index, each in enumerate(given["requests"]) if each["finished"])


@promise("utilization counts every token that was given, and every slot of every step")
def _every_slot(given: Given, answer: Served, expected: Served) -> bool:
    return close(answer.utilization, expected.utilization)


@promise("who did not finish was served nothing")
def _only_finished(given: Given, answer: Served, expected: Served) -> bool:
    return set(answer.kept) <= {index for index, _ in _finished(given)}


@promise("the first token counts from the arrival to the end of its step")
def _first_in_time(given: Given, answer: Served, expected: Served) -> bool:
    """Looks at those of several tokens whose time per token is fine by any count, and at those who are late.

    Not at those whose first token comes to the very second.
    """
    lax = {**given, "tpot_limit": given["tpot_limit"] / 2}
    indices = (
        index
        for index, each in _finished(given)
        if _times(given, each)[0] - each["arrival"] != given["ttft_limit"]
        and ((_tokens(each) > 1 and _waits(lax, each).tpot) or not _waits(given, each).ttft)
    )
    return _right_for(given, answer, expected, indices)


@promise("the time per token is the mean gap between the ends of its steps")
def _end_to_end(given: Given, answer: Served, expected: Served) -> bool:
    """Looks at those whose tokens came step upon step, all with time to spare or none."""
    indices = (
        index
        for index, each in _finished(given)
        if _tokens(each) > 1 and not _has_pause(given, each) and not _is_to_the_second(given, each)
    )
    return _right_for(given, answer, expected, indices)


def _is_to_the_second(given: Given, request: dict[str, Any]) -> bool:
    """Whether one of its promises is kept with nothing to spare."""
    times = _times(given, request)
    return (
        times[0] - request["arrival"] == given["ttft_limit"]
        or times[-1] - times[0] == (len(times) - 1) * given["tpot_limit"]
    )


@promise("a pause is part of the time per token")
def _pause_counts(given: Given, answer: Served, expected: Served) -> bool:
    """Looks at those whose tokens did not come step upon step."""
    return _right_for(
        given, answer, expected, (index for index, each in _finished(given) if _has_pause(given, each))
    )


def _has_pause(given: Given, request: dict[str, Any]) -> bool:
    steps, times = given["steps"], _times(given, request)
    own = [step for first, tokens in request["decode"] for step in range(first, first + tokens)]
    return times[-1] - times[0] > sum(steps[step][1] for step in own[1:])


@promise("one token alone has no time per token")
def _one_token(given: Given, answer: Served, expected: Served) -> bool:
    return _right_for(
        given, answer, expected, (index for index, each in _finished(given) if _tokens(each) == 1)
    )


@promise("both promises are kept, to the very second")
def _both_promises(given: Given, answer: Served, expected: Served) -> bool:
    return answer.kept == expected.kept


@promise("goodput counts them in the time from the first step's start to the last step's end")
def _whole_span(given: Given, answer: Served, expected: Served) -> bool:
    return close(answer.goodput, expected.goodput)


def _explain_ride(given: Given, expected: Served) -> str:
    tokens, steps = sum(map(_tokens, given["requests"])), len(given["steps"])
    ride = f"{count(tokens, 'token')} ÷ ({count(given['slots'], 'slot')} × {count(steps, 'step')})"
    span = sum(given["steps"][-1]) - given["steps"][0][0]
    return f"{ride}; {len(expected.kept)} kept ÷ {span:g} s"


GOODPUT = Task(
    id="ex06.1",
    title="utilization and goodput",
    function="goodput",
    cases=_rides,
    smaller=_smaller_rides,
    expected=_expected_ride,
    read=_read_ride,
    properties=(
        _every_slot,
        _only_finished,
        _first_in_time,
        _end_to_end,
        _pause_counts,
        _one_token,
        _both_promises,
        _whole_span,
    ),
    explain=_explain_ride,
    hints=(
        "Everything follows from one list a request: the steps in which it was given a token. "
        "Its length is the request's tokens.",
        "A token is there at start + duration of its step. TTFT is the first of these times less the arrival; "
        "the time per token is the last less the first, divided by one less than there are.",
        "Count tokens for utilization before you ask who finished. Then skip those who did not; for the others "
        "test `ttft <= ttft_limit` and, where there are two tokens or more, `tpot <= tpot_limit`. Divide how many "
        "are left by `steps[-1][0] + steps[-1][1] - steps[0][0]`.",
    ),
)
