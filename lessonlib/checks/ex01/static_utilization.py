"""ex01.1: the utilization of static batching."""

from __future__ import annotations

from lessonlib.checks.cases import lengths_and_slots, smaller_lengths
from lessonlib.checks.ex01.utilization import never_above_one, read_utilization
from lessonlib.checks.replay import whole_ride
from lessonlib.checks.spec import Given, Task, close, count, promise
from lessonlib.simulation.slots import STATIC
from lessonlib.utilization import static_steps, static_utilization


@promise("a batch lasts as long as its longest request")
def _longest_decides(given: Given, answer: float, expected: float) -> bool:
    """Looks at one full batch only; the other two look at what goes beyond it."""
    return len(given["lengths"]) != given["slots"] or close(answer, expected)


@promise("a slot that nobody boarded is paid for as well")
def _unboarded_slots_count(given: Given, answer: float, expected: float) -> bool:
    return len(given["lengths"]) >= given["slots"] or close(answer, expected)


@promise("the next batch boards when the last of this one has left")
def _batch_after_batch(given: Given, answer: float, expected: float) -> bool:
    return close(answer, expected)


def _explain_static(given: Given, expected: float) -> str:
    slots = given["slots"]
    steps = static_steps(given["lengths"], slots)
    return f"{count(sum(given['lengths']), 'token')} ÷ ({count(slots, 'slot')} × {count(steps, 'step')})"


STATIC_UTILIZATION = Task(
    id="ex01.1",
    title="static utilization",
    function="static_utilization",
    cases=lengths_and_slots,
    smaller=smaller_lengths,
    expected=static_utilization,
    read=read_utilization,
    properties=(
        never_above_one,
        _longest_decides,
        _unboarded_slots_count,
        _batch_after_batch,
    ),
    explain=_explain_static,
    rides=whole_ride(STATIC),
    hints=(
        "How long does a batch last when one request in it is much longer than the others?",
        "Cut the list into batches of `slots`. A batch takes as many steps as its longest request; the batches "
        "ride one after another.",
        "steps is the sum of max(batch) over lengths[0:slots], lengths[slots:2*slots], …; the answer is "
        "sum(lengths) / (slots * steps). The last batch may be smaller, and its empty slots are paid for.",
    ),
)
