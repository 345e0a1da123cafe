"""ex06.3: the rate of a batch size that was not measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from lessonlib import recorded
from lessonlib.checks.cases import DRAWN
from lessonlib.checks.spec import Given, Property, Task, number, promise
from lessonlib.errors import CourseError

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


# `expected` is asked without the truth, and looks it up by the inputs.
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
    measured = [float(f"{machine.rate(size) * by:.6g}") for size, by in zip(sizes, factors, strict=True)]
    return _known(kind_, sizes[:-1], measured[:-1], sizes[-1], machine.rate(sizes[-1]))


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
                    measured = [float(f"{rate:.6g}") for rate in rates]
                    yield _known(RECORD, sizes[:-1], measured[:-1], sizes[-1], rates[-1])


def _no_smaller(given: Given) -> Iterator[Given]:
    """A sweep without one of its sizes asks for something else."""
    return iter(())


def _expected_rate(batches: list[int], rates: list[float], batch: int) -> float:
    return _truths[_asked(batches, rates, batch)].rate


def _read_rate(answer: Any, given: Given) -> float:
    return number(answer, "The rate")


def _kind_of(given: Given) -> str:
    return _truths[_asked(**given)].kind


@promise("a batch gives tokens")
def _gives_tokens(given: Given, answer: float, expected: float) -> bool:
    return answer > 0


def _slack(given: Given) -> float:
    """How far a told rate may be off: by its rounding, or by its wobble."""
    return 2 * OFF if _kind_of(given) in (WOBBLE, RECORD) else 1e-5


@promise("more riders never give fewer tokens")
def _never_fewer(given: Given, answer: float, expected: float) -> bool:
    return answer >= given["rates"][-1] * (1 - _slack(given))


@promise("more riders never give more than their share")
def _never_above_share(given: Given, answer: float, expected: float) -> bool:
    return answer <= given["rates"][-1] * given["batch"] / given["batches"][-1] * (1 + _slack(given))


def _foreseen(name: str, *kinds: str) -> Property:
    """Looks at machines of these kinds."""

    def holds(given: Given, answer: float, expected: float) -> bool:
        kind_ = _kind_of(given)
        return kind_ not in kinds or abs(answer / expected - 1) <= NEAR[kind_]

    return Property(name, holds)


def _explain_rate(given: Given, expected: float) -> str:
    steps = [1000 * size / rate for size, rate in zip(given["batches"], given["rates"], strict=True)]
    within = f"within {NEAR[_kind_of(given)]:.0%}"
    return f"{within}; the steps measured took {', '.join(f'{step:.3g}' for step in steps)} ms"


PREDICTION = Task(
    id="ex06.3",
    title="the next batch size",
    function="predict",
    cases=_sweeps,
    smaller=_no_smaller,
    expected=_expected_rate,
    read=_read_rate,
    properties=(
        _gives_tokens,
        _never_fewer,
        _never_above_share,
        _foreseen("while a step costs the same, the rate grows with the batch", FLAT),
        _foreseen("while each rider costs the same, the rate stays", SHARED),
        _foreseen("a step that grows evenly goes on growing evenly", EVEN),
        _foreseen("beyond a bend, the latest slope counts", BEND),
        _foreseen("a measured sweep is foreseen, and its wobble not blown up", WOBBLE, RECORD, FALLS, LEAPS),
    ),
    explain=_explain_rate,
    hints=(
        "Print batch ÷ rate for each size: seconds a step. Which shape do you see, and where does it change?",
        "The machine's limit at the next size is that of the last two sizes. What does one more rider cost a step "
        "between these two?",
        "`slope = (seconds[-1] - seconds[-2]) / (batches[-1] - batches[-2])`, kept between 0 and "
        "`seconds[-1] / batches[-1]`; then the step takes `seconds[-1] + slope * (batch - batches[-1])`, and the "
        "rate is batch ÷ that.",
    ),
)
