"""What holds in every step of a sound scheduler, as laws: each gives a number that is 0 where the law holds.

A law reads a plain record (`record`) and nothing else. It holds for schedulers that serve requests in order of arrival,
or in tiers with bounded patience, and take memory as they need it. A family of faults breaks one law.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from lessonlib.incidents.record import Record

Measure = Callable[[Record, int], float]
ROUNDING = 1e-9  # of seconds


@dataclass(frozen=True)
class Law:
    """One thing that holds in every step.

    Attributes:
        name: a word for it.
        holds: the law, as a sentence.
        number: what `measure` counts in a step, for whoever breaks it.
        measure: the number of a step, given the record and the step; 0 where the law holds.
    """

    name: str
    holds: str
    number: str
    measure: Measure

    def broken_in(self, record: Record) -> tuple[int, float] | None:
        """The first step that breaks the law, and its number; None for a record that keeps it."""
        found = ((step, self.measure(record, step)) for step in range(len(record["steps"])))
        return next(((step, number) for step, number in found if number > ROUNDING), None)


def _blocks_for(record: Record, tokens: int) -> int:
    return int(-(-tokens // record["block_size"]))


def _claim(record: Record, request: int) -> tuple[float, int]:
    """Sorts requests: the smallest boards first and is preempted last."""
    if not record["patience"]:
        return 0, request
    arrived = next(step for step, each in enumerate(record["steps"]) if request in each["arrived"])
    return arrived + record["patience"] * record["requests"][request]["tier"], request


# ----- memory -----


def _unaccounted(record: Record, at: int) -> float:
    step = record["steps"][at]
    return abs(record["blocks"] - step["free_blocks"] - sum(step["held"].values())) if _owns(record) else 0


def _owns(record: Record) -> bool:
    """Whether every block in a table is its request's own: nothing is shared."""
    return all(each["ids"] is None for each in record["requests"])


def _misfits(record: Record, at: int) -> float:
    step = record["steps"][at]
    return int(
        sum(abs(held - _blocks_for(record, step["known"][each])) for each, held in step["held"].items())
    )


def _found_too_much(record: Record, at: int) -> float:
    found = record["steps"][at]["boarded"].items()
    return int(sum(max(0, tokens - _shareable(record, at, request)) for request, tokens in found))


def _shareable(record: Record, at: int, request: int) -> int:
    """The most tokens of its prompt that an earlier step stored under the same beginning, for the same tenant."""
    asking = record["requests"][request]
    if asking["ids"] is None:
        return 0
    most = 0
    for step in record["steps"][:at]:
        for other, stored in step["stored"].items():
            one = record["requests"][other]
            if one["tenant"] == asking["tenant"]:
                most = max(most, min(stored, _alike(one["ids"], asking["ids"])))
    return most


def _alike(one: list[int], other: list[int]) -> int:
    """How many tokens two prompts have in common from their start."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _below_watermark(record: Record, at: int) -> float:
    step = record["steps"][at]
    if not step["boarded"] or len(step["on_board"]) < 2:
        return 0
    return int(max(0, record["watermark"] - step["free_blocks"]))


# ----- who boards, who waits, who goes -----


def _overtaken(record: Record, at: int) -> float:
    step = record["steps"][at]
    if not step["boarded"]:
        return 0
    last = max(_claim(record, each) for each in step["boarded"])
    return sum(_claim(record, each) < last for each in step["queue"])


def _left_empty(record: Record, at: int) -> float:
    """Slots that stay empty though the first of the queue would fit."""
    step = record["steps"][at]
    empty = record["slots"] - len(step["on_board"])
    if not step["queue"] or not empty or step["preempted"] or _tokens(step) >= record["budget"]:
        return 0
    first = min(step["queue"], key=lambda each: _claim(record, each))
    needed = _blocks_for(record, _tokens_of(record, first, at))
    kept = record["watermark"] if step["on_board"] else 0
    return empty if needed <= step["free_blocks"] - kept else 0


def _tokens_of(record: Record, request: int, at: int) -> int:
    """Tokens that a request has before a step: its prompt, and what it was given so far."""
    given = sum(request in each["decode"] for each in record["steps"][:at])
    return int(record["requests"][request]["prompt"]) + given


def _weaker(record: Record, at: int) -> float:
    step = record["steps"][at]
    if not step["preempted"]:
        return 0
    first = min(_claim(record, each) for each in step["preempted"])
    return sum(_claim(record, each) > first for each in step["on_board"])


# ----- what a step computes -----


def _tokens(step: dict[str, Any]) -> int:
    """Tokens that a step computes: of prompts, and one for each request that decodes."""
    return int(sum(step["prefill"].values()) + len(set(step["decode"]) - step["prefill"].keys()))


def _without_token(record: Record, at: int) -> float:
    step = record["steps"][at]
    return sum(each not in step["decode"] and _decodes(record, at, each) for each in step["on_board"])


def _decodes(record: Record, at: int, request: int) -> bool:
    """Whether the request has been given a token in an earlier step since it boarded."""
    for step in reversed(record["steps"][:at]):
        if request in step["decode"] or request not in step["on_board"]:
            return request in step["decode"] and request in step["on_board"]
        if request in step["boarded"]:
            return False
    return False


def _over_budget(record: Record, at: int) -> float:
    return int(max(0, _tokens(record["steps"][at]) - record["budget"]))


def _unread(record: Record, at: int) -> float:
    step = record["steps"][at]
    return int(sum(abs(step["known"][each] - step["stored"][each]) for each in step["decode"]))


def _off_the_limit(record: Record, at: int) -> float:
    """Whoever has all tokens leaves, and no one else finishes."""
    step = record["steps"][at]
    off = 0
    for each in set(step["decode"]) | set(step["finished"]):
        limit = record["requests"][each]["limit"]
        has_all = _tokens_of(record, each, at + 1) - record["requests"][each]["prompt"] >= limit
        if has_all != (each in step["finished"]):
            off += abs(sum(each in one["decode"] for one in record["steps"]) - limit)
    return off


# ----- the clock -----


def _backward(record: Record, at: int) -> float:
    step = record["steps"][at]
    before = record["steps"][at - 1] if at else {"start": 0.0, "duration": 0.0}
    back = before["start"] + before["duration"] - step["start"]
    return float(max([0.0, back, *(time - step["start"] for time in step["arrived"].values())]))


LAWS = {
    law.name: law
    for law in (
        Law(
            "blocks",
            "Every block is free or in one block table.",
            "blocks that are neither free nor held, or that are held twice",
            _unaccounted,
        ),
        Law(
            "tables",
            "Everyone on board holds the blocks that their tokens so far take, and no others.",
            "blocks that all on board hold too many or too few",
            _misfits,
        ),
        Law(
            "prefixes",
            "Who boards finds only what an earlier step stored, for the same tenant, under the same beginning.",
            "tokens found stored that nobody had stored for them",
            _found_too_much,
        ),
        Law(
            "watermark",
            "After a boarding beside others, the watermark's blocks are free.",
            "blocks missing to the watermark",
            _below_watermark,
        ),
        Law(
            "order",
            "Who boards has a better claim than everyone who goes on waiting.",
            "requests that wait on with a better claim than one that boards",
            _overtaken,
        ),
        Law(
            "seats",
            "Where a slot is empty and the first of the queue fits, it boards.",
            "slots that stay empty",
            _left_empty,
        ),
        Law(
            "preemption",
            "Who is preempted has a weaker claim than all who are on board in that step.",
            "requests on board with a weaker claim than one that is preempted",
            _weaker,
        ),
        Law(
            "decodes",
            "Everyone who decodes gets a token in every step.",
            "requests on board that decode and get no token",
            _without_token,
        ),
        Law(
            "budget",
            "A step computes no more tokens than its budget.",
            "tokens above the budget",
            _over_budget,
        ),
        Law(
            "reading",
            "A token comes when all tokens before it are stored.",
            "tokens before it that are not stored, of all who get a token",
            _unread,
        ),
        Law(
            "limits",
            "A request leaves in the step that gives its last token.",
            "tokens that it gets in all above or below its limit",
            _off_the_limit,
        ),
        Law(
            "clock",
            "A step starts when the one before has ended, or later, and sees only who has arrived.",
            "time from the start of the step back to what it should come after",
            _backward,
        ),
    )
}
"""The laws by name."""


def broken(record: Record, names: Iterable[str] = LAWS) -> dict[str, tuple[int, float]]:
    """Law → the first step that breaks it, and its number, for those of these laws that are broken."""
    found = {name: LAWS[name].broken_in(record) for name in names}
    return {name: where for name, where in found.items() if where is not None}
