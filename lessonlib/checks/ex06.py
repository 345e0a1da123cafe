"""What exercise 06 must do: judge a result file. Utilization and goodput, a speed-up taken apart, a prediction."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from random import Random
from statistics import median
from typing import Any, NamedTuple

from lessonlib import recorded
from lessonlib.checks.rides import DRAWN, fewer, lower
from lessonlib.checks.spec import (
    Exercise,
    Given,
    Property,
    Task,
    WrongForm,
    close,
    count,
    kind,
    number,
    parts,
    whole_list,
)
from lessonlib.errors import CourseError

# ----- ex06.1 -----

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


def _given(slots: int, steps: list, requests: list, ttft_limit: float, tpot_limit: float) -> Given:
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
        for place in sorted(riding):
            chance = rng.random()
            if chance < 0.1:  # reads, or is thrown out and comes back
                continue
            if chance < 0.14:  # gives up
                riding.discard(place)
                continue
            _gets_token(requests[place], len(steps))
            if _tokens(requests[place]) == wants[place]:
                requests[place]["finished"] = True
                riding.discard(place)
        steps.append([now, duration])
        now += duration + rng.choice((0, 0, 1)) * TICK
    return _given(slots, steps, requests, rng.randint(2, 24) * TICK, rng.randint(2, 10) * TICK)


def _gets_token(request: dict, step: int) -> None:
    runs = request["decode"]
    if runs and sum(runs[-1]) == step:
        runs[-1][1] += 1
    else:
        runs.append([step, 1])


def _tokens(request: dict) -> int:
    return sum(tokens for _, tokens in request["decode"])


def _smaller_rides(given: Given) -> Iterator[Given]:
    """A request less, a slot less, or a step less at the end that gave nobody anything."""
    yield from fewer(given, "requests", least=1)
    yield from lower(given, "slots", 1)
    last = len(given["steps"]) - 1
    if last and not any(sum(run) > last for request in given["requests"] for run in request["decode"]):
        yield {**given, "steps": given["steps"][:-1]}


def _times(given: Given, request: dict) -> list[float]:
    """When each of a request's tokens was there."""
    steps = given["steps"]
    return [sum(steps[step]) for first, tokens in request["decode"] for step in range(first, first + tokens)]


class Waits(NamedTuple):
    """Whether each promise was kept; a time per token of one token alone is always kept."""

    ttft: bool
    tpot: bool


def _waits(given: Given, request: dict) -> Waits:
    times = _times(given, request)
    gaps = len(times) - 1
    in_time = times[-1] - times[0] <= gaps * given["tpot_limit"]
    return Waits(times[0] - request["arrival"] <= given["ttft_limit"], in_time)


def _due_ride(**given: Any) -> Served:
    steps, requests = given["steps"], given["requests"]
    kept = [
        place for place, request in enumerate(requests) if request["finished"] and all(_waits(given, request))
    ]
    span = sum(steps[-1]) - steps[0][0]
    tokens = sum(map(_tokens, requests))
    return Served(tokens / (given["slots"] * len(steps)), kept, len(kept) / span)


def _read_ride(answer: Any, given: Given) -> Served:
    utilization, kept, per_second = parts(answer, Served._fields)
    return Served(
        number(utilization, "utilization"), sorted(whole_list(kept, "kept")), number(per_second, "goodput")
    )


def _right_for(given: Given, answer: Served, due: Served, places: Iterator[int]) -> bool:
    return all((place in answer.kept) == (place in due.kept) for place in places)


def _finished(given: Given) -> Iterator[tuple[int, dict]]:
    return ((place, each) for place, each in enumerate(given["requests"]) if each["finished"])


def _every_slot(given: Given, answer: Served, due: Served) -> bool:
    return close(answer.utilization, due.utilization)


def _only_finished(given: Given, answer: Served, due: Served) -> bool:
    return set(answer.kept) <= {place for place, _ in _finished(given)}


def _first_in_time(given: Given, answer: Served, due: Served) -> bool:
    """Looks at those of several tokens whose time per token is fine by any count, and at those who are late.

    Not at those whose first token comes to the very second.
    """
    lax = {**given, "tpot_limit": given["tpot_limit"] / 2}
    places = (
        place
        for place, each in _finished(given)
        if _times(given, each)[0] - each["arrival"] != given["ttft_limit"]
        and ((_tokens(each) > 1 and _waits(lax, each).tpot) or not _waits(given, each).ttft)
    )
    return _right_for(given, answer, due, places)


def _end_to_end(given: Given, answer: Served, due: Served) -> bool:
    """Looks at those whose tokens came step upon step, all with time to spare or none."""
    places = (
        place
        for place, each in _finished(given)
        if _tokens(each) > 1 and not _has_pause(given, each) and not _is_to_the_second(given, each)
    )
    return _right_for(given, answer, due, places)


def _is_to_the_second(given: Given, request: dict) -> bool:
    """Whether one of its promises is kept with nothing to spare."""
    times = _times(given, request)
    return (
        times[0] - request["arrival"] == given["ttft_limit"]
        or times[-1] - times[0] == (len(times) - 1) * given["tpot_limit"]
    )


def _pause_counts(given: Given, answer: Served, due: Served) -> bool:
    """Looks at those whose tokens did not come step upon step."""
    return _right_for(
        given, answer, due, (place for place, each in _finished(given) if _has_pause(given, each))
    )


def _has_pause(given: Given, request: dict) -> bool:
    steps, times = given["steps"], _times(given, request)
    own = [step for first, tokens in request["decode"] for step in range(first, first + tokens)]
    return times[-1] - times[0] > sum(steps[step][1] for step in own[1:])


def _one_token(given: Given, answer: Served, due: Served) -> bool:
    return _right_for(given, answer, due, (place for place, each in _finished(given) if _tokens(each) == 1))


def _both_promises(given: Given, answer: Served, due: Served) -> bool:
    return answer.kept == due.kept


def _whole_span(given: Given, answer: Served, due: Served) -> bool:
    return close(answer.goodput, due.goodput)


def _explain_ride(given: Given, due: Served) -> str:
    tokens, steps = sum(map(_tokens, given["requests"])), len(given["steps"])
    ride = f"{count(tokens, 'token')} ÷ ({count(given['slots'], 'slot')} × {count(steps, 'step')})"
    span = sum(given["steps"][-1]) - given["steps"][0][0]
    return f"{ride}; {len(due.kept)} kept ÷ {span:g} s"


GOODPUT = Task(
    id="ex06.1",
    title="utilization and goodput",
    function="goodput",
    cases=_rides,
    smaller=_smaller_rides,
    due=_due_ride,
    read=_read_ride,
    properties=(
        Property("utilization counts every token that was given, and every slot of every step", _every_slot),
        Property("whoever did not finish has not arrived", _only_finished),
        Property("the first token counts from the arrival to the end of its step", _first_in_time),
        Property("the time per token is the mean gap between the ends of its steps", _end_to_end),
        Property("a pause is part of the time per token", _pause_counts),
        Property("one token alone has no time per token", _one_token),
        Property("both promises are kept, to the very second", _both_promises),
        Property(
            "goodput counts them in the time from the first step's start to the last step's end", _whole_span
        ),
    ),
    explain=_explain_ride,
)

# ----- ex06.2 -----

Factors = list[tuple[float, float]]


def _chains(rng: Random) -> Iterator[Given]:
    """Two that ran once, then more of them, then several runs and some who could not."""
    for before, after in (
        ((10, 4.0), (5, 2.0)),
        ((10, 4.0), (10, 2.0)),
        ((10, 4.0), (20, 4.0)),
        ((8, 2.0), (4, 2.0)),
    ):
        yield {"chain": [_contender(before[0], [before[1]]), _contender(after[0], [after[1]])]}
    yield {"chain": [_contender(10, [4.0])]}
    yield {"chain": [_contender(8, [8.0]), _contender(4, [2.0]), _contender(2, [3.0])]}
    for many in (3, 4, 6):
        for _ in range(5):
            yield {"chain": [_drawn(rng, runs=1) for _ in range(many)]}
    yield {"chain": [_contender(10, [4.0]), _contender(5, []), _contender(5, [1.0])]}
    yield {"chain": [_contender(5, []), _contender(10, [4.0]), _contender(5, [1.0])]}
    yield {"chain": [_contender(10, [4.0]), _contender(10, [1.0, 2.0, 9.0])]}
    yield {"chain": [_contender(10, [4.0]), _contender(10, [9.0, 1.0, 3.0, 2.0])]}
    for _ in range(DRAWN):
        chain = [_drawn(rng, runs=rng.choice((0, 1, 2, 3, 4, 5))) for _ in range(rng.randint(2, 7))]
        yield {"chain": [*chain, _drawn(rng, runs=3)]}


def _contender(steps: int, seconds: list[float]) -> dict[str, Any]:
    return {"steps": steps, "seconds": seconds}


def _drawn(rng: Random, runs: int) -> dict[str, Any]:
    usual = rng.uniform(2, 60)
    return _contender(rng.randint(100, 2_000), [round(usual * rng.uniform(0.9, 1.6), 2) for _ in range(runs)])


def _smaller_chains(given: Given) -> Iterator[Given]:
    """A contender less, or a run less of one, where somebody is left who ran."""
    for smaller in fewer(given, "chain", least=1):
        if any(each["seconds"] for each in smaller["chain"]):
            yield smaller
    for place, each in enumerate(given["chain"]):
        if len(each["seconds"]) > 1:
            chain = list(given["chain"])
            chain[place] = {**each, "seconds": each["seconds"][:-1]}
            yield {"chain": chain}


def _ran(given: Given) -> list[dict]:
    return [each for each in given["chain"] if each["seconds"]]


def _due_chain(chain: list[dict]) -> Factors:
    pace = [(each["steps"], median(each["seconds"]) / each["steps"]) for each in chain if each["seconds"]]
    return [(a[0] / b[0], a[1] / b[1]) for a, b in pairwise(pace)]


def _read_chain(answer: Any, given: Given) -> Factors:
    if not isinstance(answer, list | tuple):
        raise WrongForm(f"The answer should be a list of (fewer, quicker); what came back is {kind(answer)}.")
    pairs = []
    for each in answer:
        if not isinstance(each, list | tuple) or len(each) != 2:
            raise WrongForm("Each item should be a pair (fewer, quicker).")
        pairs.append((number(each[0], "fewer"), number(each[1], "quicker")))
    return pairs


def _has_one_run_each(given: Given) -> bool:
    return all(len(each["seconds"]) == 1 for each in _ran(given))


def _one_each(given: Given, answer: Factors, due: Factors) -> bool:
    return len(answer) == len(due)


def _fewer_steps(given: Given, answer: Factors, due: Factors) -> bool:
    """Looks at two contenders; others look at more."""
    return len(due) != 1 or close(answer[0][0], due[0][0])


def _quicker_steps(given: Given, answer: Factors, due: Factors) -> bool:
    """Looks at two contenders with one run each; others look at more."""
    return len(due) != 1 or not _has_one_run_each(given) or close(answer[0][1], due[0][1])


def _multiply(given: Given, answer: Factors, due: Factors) -> bool:
    """Looks at contenders with one run each."""
    products = (math.prod(a * b for a, b in factors) for factors in (answer, due))
    return not _has_one_run_each(given) or close(*products)


def _neighbors(given: Given, answer: Factors, due: Factors) -> bool:
    """Looks at contenders with one run each."""
    return not _has_one_run_each(given) or _all_close(answer, due)


def _median_counts(given: Given, answer: Factors, due: Factors) -> bool:
    return _all_close(answer, due)


def _all_close(answer: Factors, due: Factors) -> bool:
    return all(close(*pair) for a, b in zip(answer, due, strict=True) for pair in zip(a, b, strict=True))


def _explain_chain(given: Given, due: Factors) -> str:
    paces = [f"{each['steps']:,} × {median(each['seconds']) / each['steps']:.3g} s" for each in _ran(given)]
    return f"steps × seconds a step: {', '.join(paces)}"


SPLIT = Task(
    id="ex06.2",
    title="a speed-up taken apart",
    function="split",
    cases=_chains,
    smaller=_smaller_chains,
    due=_due_chain,
    read=_read_chain,
    properties=(
        Property("whoever has no run is left out", _one_each),
        Property("there are fewer steps where there were more before", _fewer_steps),
        Property("steps are quicker where each takes less time", _quicker_steps),
        Property("all factors multiply to the whole", _multiply),
        Property("each contender stands against the one before", _neighbors),
        Property("several runs are told by their median", _median_counts),
    ),
    explain=_explain_chain,
)

# ----- ex06.3 -----

FLAT, SHARED, EVEN, BEND, WOBBLE, RECORD = "flat", "shared", "even", "bend", "wobble", "record"
FALLS, LEAPS = "falls", "leaps"  # the last rate is below the one before it, or more than its share above
NEAR = {
    FLAT: 0.02,
    SHARED: 0.02,
    EVEN: 0.02,
    BEND: 0.02,
    WOBBLE: 0.12,
    RECORD: 0.30,
    FALLS: 0.12,
    LEAPS: 0.12,
}
OFF = 0.01  # of each figure, at most, where it wobbles
# A CPU's linear algebra changes course with the number of rows, and a neighbor slows it down. A static batch that
# memory cuts in two is no larger batch.
RECORDS, ENGINES = ("h100",), ("course", "vllm")

Asked = tuple[tuple[int, ...], tuple[float, ...], int]


class Truth(NamedTuple):
    """What the machine does at the size asked for, and which kind of machine it is."""

    kind: str
    rate: float


# A function is asked without the truth, so what is due is looked up by what it was asked.
_truths: dict[Asked, Truth] = {}


def _asked(batches: list[int], rates: list[float], batch: int) -> Asked:
    return tuple(batches), tuple(rates), batch


class Machine(NamedTuple):
    """Seconds a decode step of `b` riders: base + max(weights, arithmetic × b) + memory × b."""

    base: float = 0.0
    weights: float = 0.0
    arithmetic: float = 0.0
    memory: float = 0.0

    def rate(self, batch: int) -> float:
        step = self.base + max(self.weights, self.arithmetic * batch) + self.memory * batch
        return batch / step


def _sweeps(rng: Random) -> Iterator[Given]:
    """Machines with one limit, then with two, then what was measured."""
    yield _sweep(FLAT, Machine(weights=0.01), [1, 2, 4, 8])
    yield _sweep(SHARED, Machine(arithmetic=0.02), [1, 2, 4, 8])
    yield _sweep(EVEN, Machine(weights=0.01, memory=0.001), [1, 2, 4, 8])
    yield _sweep(BEND, Machine(weights=0.01, arithmetic=0.005), [1, 2, 4, 8, 16, 32])
    for kind_ in (FLAT, SHARED, EVEN, BEND):
        for _ in range(DRAWN // 3):
            yield _drawn_sweep(rng, kind_)
    yield _sweep(WOBBLE, Machine(weights=0.01), [4, 8, 16, 32], (1 - OFF, 1 + OFF, 1 - OFF, 1))
    # Measured so, a straight line leaves what is possible: by 1.2% and by 3%.
    yield _known(FALLS, [4, 8, 16, 32], [100.0, 200.0, 400.0, 390.0], 64, 390.0)
    yield _known(LEAPS, [4, 8, 16], [100.0, 198.0, 404.0], 24, 606.0)
    yield from _recorded_sweeps()
    for _ in range(DRAWN):
        yield _drawn_sweep(rng, rng.choice((FLAT, EVEN, BEND)), wobble=OFF)


def _drawn_sweep(rng: Random, kind_: str, wobble: float = 0.0) -> Given:
    """A machine of this kind and sizes for it; where it wobbles, its kind is that."""
    sizes = [rng.randint(1, 4)]
    for _ in range(rng.randint(6, 8) if kind_ == BEND else rng.randint(3, 7)):
        sizes.append(math.ceil(sizes[-1] * rng.choice((1.5, 2, 2, 2.5))))
    sizes[-1] = min(sizes[-1], 2 * sizes[-2])
    weights = rng.uniform(0.002, 0.03)
    knee = sizes[rng.randint(2, max(2, len(sizes) - 5))]
    machine = {
        FLAT: Machine(rng.uniform(0, 0.002), weights),
        SHARED: Machine(arithmetic=weights),
        EVEN: Machine(rng.uniform(0, 0.002), weights, memory=weights * rng.uniform(0.01, 0.2)),
        BEND: Machine(rng.uniform(0, 0.3) * weights, weights, weights / knee),
    }[kind_]
    off = [rng.uniform(1 - wobble, 1 + wobble) for _ in sizes]
    return _sweep(WOBBLE if wobble else kind_, machine, sizes, off)


def _sweep(kind_: str, machine: Machine, sizes: list[int], off: Sequence[float] = ()) -> Given:
    """The last size is asked for; the others are told, each as many times its rate as `off` says."""
    factors = off or [1.0] * len(sizes)
    told = [float(f"{machine.rate(size) * by:.6g}") for size, by in zip(sizes, factors, strict=True)]
    return _known(kind_, sizes[:-1], told[:-1], sizes[-1], machine.rate(sizes[-1]))


def _known(kind_: str, batches: list[int], rates: list[float], batch: int, rate: float) -> Given:
    _truths[_asked(batches, rates, batch)] = Truth(kind_, rate)
    return {"batches": batches, "rates": rates, "batch": batch}


def _recorded_sweeps() -> Iterator[Given]:
    """The largest size of every sweep in the course's own records, from all smaller ones."""
    for what in ("", "sweep"):
        try:
            found: Mapping[str, Any] = recorded.comparisons(what)
        except CourseError:
            continue
        for machine in RECORDS:
            for name in ENGINES if machine in found else ():
                sizes, rates = found[machine].sweep(name)
                if len(sizes) > 3 and sizes[-1] <= 2 * sizes[-2]:
                    told = [float(f"{rate:.6g}") for rate in rates]
                    yield _known(RECORD, sizes[:-1], told[:-1], sizes[-1], rates[-1])


def _no_smaller(given: Given) -> Iterator[Given]:
    """A sweep without one of its sizes asks for something else."""
    return iter(())


def _due_rate(batches: list[int], rates: list[float], batch: int) -> float:
    return _truths[_asked(batches, rates, batch)].rate


def _read_rate(answer: Any, given: Given) -> float:
    return number(answer, "The rate")


def _kind_of(given: Given) -> str:
    return _truths[_asked(**given)].kind


def _gives_tokens(given: Given, answer: float, due: float) -> bool:
    return answer > 0


def _slack(given: Given) -> float:
    """How far a told rate may be off: by its rounding, or by its wobble."""
    return 2 * OFF if _kind_of(given) in (WOBBLE, RECORD) else 1e-5


def _never_fewer(given: Given, answer: float, due: float) -> bool:
    return answer >= given["rates"][-1] * (1 - _slack(given))


def _never_above_share(given: Given, answer: float, due: float) -> bool:
    return answer <= given["rates"][-1] * given["batch"] / given["batches"][-1] * (1 + _slack(given))


def _foreseen(name: str, *kinds: str) -> Property:
    """Looks at machines of these kinds."""

    def holds(given: Given, answer: float, due: float) -> bool:
        kind_ = _kind_of(given)
        return kind_ not in kinds or abs(answer / due - 1) <= NEAR[kind_]

    return Property(name, holds)


def _explain_rate(given: Given, due: float) -> str:
    steps = [1000 * size / rate for size, rate in zip(given["batches"], given["rates"], strict=True)]
    within = f"within {NEAR[_kind_of(given)]:.0%}"
    return f"{within}; the steps measured took {', '.join(f'{step:.3g}' for step in steps)} ms"


PREDICTION = Task(
    id="ex06.3",
    title="the next batch size",
    function="predict",
    cases=_sweeps,
    smaller=_no_smaller,
    due=_due_rate,
    read=_read_rate,
    properties=(
        Property("a batch gives tokens", _gives_tokens),
        Property("more riders never give fewer tokens", _never_fewer),
        Property("more riders never give more than their share", _never_above_share),
        _foreseen("while a step costs the same, the rate grows with the batch", FLAT),
        _foreseen("while each rider costs the same, the rate stays", SHARED),
        _foreseen("a step that grows evenly goes on growing evenly", EVEN),
        _foreseen("beyond a bend, the latest slope counts", BEND),
        _foreseen("a measured sweep is foreseen, and its wobble not blown up", WOBBLE, RECORD, FALLS, LEAPS),
    ),
    explain=_explain_rate,
)

EX06 = Exercise("ex06", (GOODPUT, SPLIT, PREDICTION))
