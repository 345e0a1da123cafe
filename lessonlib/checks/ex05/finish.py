"""ex05.3: each request gets its token, and some are finished."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any, NamedTuple

from lessonlib.checks.cases import DRAWN, fewer, lower, without
from lessonlib.checks.ex05.requests import Request, read_list, replaced
from lessonlib.checks.spec import Given, Task, WrongForm, count, kind, parts, promise, show, whole, whole_list


class After(NamedTuple):
    """What `finish` answers; `finished` has (id, answer, reason) of each."""

    running: list[Request]
    finished: list[tuple[int, list[int], str]]
    free_slots: list[int]
    free: list[int]


FIELDS = ("id", "slot", "token_ids", "prompt_tokens", "num_computed_tokens", "block_table")
EOS, STOP, WORDS = (2, 3), (7, 8), (11, 12, 13)  # token ids


class Row(NamedTuple):
    """One request on board and what the step gives it.

    Attributes:
        token: of its row; None where it had no part in the step.
        lacks: tokens that are still to be computed after the step.
        prompt, answer, blocks: how many it has.
        room: tokens that max_tokens still allows.
        stop, ignore_eos: its own end tokens, and whether the model's mean nothing.
    """

    token: int | None
    lacks: int = 0
    prompt: int = 1
    answer: int = 0
    blocks: int = 1
    room: int = 5
    stop: tuple[int, ...] = ()
    ignore_eos: bool = False


def _reports(rng: Random) -> Iterator[Given]:
    """Each way in which a row can go, alone; then two and three of them, then fuller cars."""
    goes_on, arrives, ends = Row(11), Row(11, room=1, blocks=2), Row(EOS[0], blocks=2)
    ways = (
        goes_on,
        Row(11, lacks=1),
        Row(None, lacks=2),
        Row(11, lacks=2, answer=2),  # it rode before
        Row(11, room=1),
        Row(11, room=2),
        Row(11, room=2, prompt=3),
        Row(EOS[0]),
        Row(EOS[1], answer=2),
        Row(EOS[0], lacks=1),
        Row(11, lacks=1, room=1),
        Row(EOS[0], ignore_eos=True),
        Row(STOP[0], stop=STOP),
        Row(STOP[0], stop=STOP, ignore_eos=True),
        Row(EOS[0], stop=EOS[:1], ignore_eos=True),  # the model's end, by the request's own wish
        Row(STOP[0]),  # an end token of somebody else
        Row(EOS[0], room=1),
        arrives,
        ends,
    )
    for way in ways:
        yield _report(rng, [way], gone=0)
    yield from (_report(rng, [], gone=1), _report(rng, [goes_on], gone=1))
    for pair in product((goes_on, arrives, ends, Row(11, lacks=1)), repeat=2):
        yield _report(rng, list(pair), gone=0)
    yield _report(rng, [Row(11, stop=STOP), Row(STOP[0])], gone=0)
    yield _report(rng, [ends, arrives, ends], gone=1)
    for _ in range(2 * DRAWN):
        yield _report(rng, [_row(rng) for _ in range(rng.randint(1, 6))], gone=rng.choice((0, 0, 1, 2)))


def _row(rng: Random) -> Row:
    lacks = rng.choice((0, 0, 0, 1, 5))
    token = rng.choice((*EOS, *STOP, *WORDS * 2))
    return Row(
        None if lacks and rng.random() < 0.3 else token,
        lacks,
        prompt=rng.randint(1, 4),
        answer=rng.randint(0, 4),
        blocks=rng.randint(1, 3),
        room=rng.choice((1, 2, 9)),
        stop=rng.choice(((), STOP[:1], STOP, EOS[:1])),
        ignore_eos=rng.random() < 0.3,
    )


def _report(rng: Random, rows: list[Row], gone: int) -> Given:
    """A car with these requests, and so many rows of requests that are not on board any more."""
    ids = rng.sample(range(10), len(rows) + gone)
    slots = rng.sample(range(len(rows) + 2), len(rows))
    held = sum(row.blocks for row in rows)
    blocks = rng.sample(range(1, 2 * held + 4), held + 2)
    left = iter(blocks[2:])
    running = [
        _on_board(rng, row, name, slot, [next(left) for _ in range(row.blocks)])
        for row, name, slot in zip(rows, ids, slots, strict=False)
    ]
    sampled = [(name, row.token) for row, name in zip(rows, ids, strict=False) if row.token is not None]
    for name in ids[len(rows) :]:
        sampled.insert(rng.randint(0, len(sampled)), (name, rng.choice((*EOS, *WORDS))))
    return {
        "running": running,
        "params": {name: _params(row) for row, name in zip(rows, ids, strict=False)},
        "sampled": dict(sampled),
        "eos_token_ids": list(EOS),
        "free_slots": [slot for slot in range(len(rows) + 2) if slot not in slots],
        "free": blocks[:2],
    }


def _on_board(rng: Random, row: Row, name: int, slot: int, table: list[int]) -> Request:
    num_tokens = max(row.prompt + row.answer, row.lacks + 1)  # a part of it is computed
    token_ids = [rng.randint(20, 99) for _ in range(num_tokens)]
    prompt = num_tokens - row.answer
    return dict(zip(FIELDS, (name, slot, token_ids, prompt, num_tokens - row.lacks, table), strict=True))


def _params(row: Row) -> Request:
    return {
        "max_tokens": row.answer + row.room,
        "stop_token_ids": list(row.stop),
        "ignore_eos": row.ignore_eos,
    }


def _smaller_reports(given: Given) -> Iterator[Given]:
    """Fewer requests, free slots and blocks; shorter texts and fewer ways to end."""
    on_board = [request["id"] for request in given["running"]]
    for name in given["sampled"]:
        if name not in on_board and len(given["sampled"]) > 1:
            yield {**given, "sampled": _but(given["sampled"], name)}
    for index, name in enumerate(on_board):
        if len(on_board) > 1 or len(given["sampled"]) > 1:
            fewer_of = {part: _but(given[part], name) for part in ("params", "sampled")}
            yield {**given, **fewer_of, "running": without(given["running"], index)}
    for name in ("free", "free_slots"):
        yield from fewer(given, name)
    for index, request in enumerate(given["running"]):
        for smaller in _smaller_requests(request):
            yield replaced(given, "running", index, smaller)
        for ends in _fewer_ends(given["params"][request["id"]], _answer_of(request)):
            yield {**given, "params": {**given["params"], request["id"]: ends}}


def _but(items: dict[int, Any], gone: int) -> dict[int, Any]:
    return {name: value for name, value in items.items() if name != gone}


def _answer_of(request: Request) -> list[int]:
    return request["token_ids"][request["prompt_tokens"] :]


def _smaller_requests(request: Request) -> Iterator[Request]:
    """A block less, or a token less of the prompt, computed or not."""
    tokens, prompt, computed = (request[name] for name in FIELDS[2:5])
    if len(request["block_table"]) > 1:
        yield {**request, "block_table": request["block_table"][:-1]}
    if prompt > 1 and computed > 1:
        yield {
            **request,
            "token_ids": tokens[1:],
            "prompt_tokens": prompt - 1,
            "num_computed_tokens": computed - 1,
        }
    if prompt > 1 and len(tokens) - computed > 1:
        yield {**request, "token_ids": tokens[1:], "prompt_tokens": prompt - 1}


def _fewer_ends(ends: Request, answer: list[int]) -> Iterator[Request]:
    """Whoever may go on may still: who looks for no end token is not told of two reasons to leave."""
    yield from fewer(ends, "stop_token_ids")
    yield from lower(ends, "max_tokens", min(ends["max_tokens"], len(answer) + 2))
    if ends["ignore_eos"]:
        yield {**ends, "ignore_eos": False}


def _expected_report(
    running: list[Request],
    params: dict[int, Request],
    sampled: dict[int, int],
    eos_token_ids: list[int],
    free_slots: list[int],
    free: list[int],
) -> After:
    """First each request gets its token, then those that end are taken out."""
    requests = [_with_token(request, sampled) for request in running]
    reasons = {
        after["id"]: _reason(after, params[after["id"]], eos_token_ids)
        for before, after in zip(running, requests, strict=True)
        if after != before
    }
    leaving = [request for request in requests if reasons.get(request["id"])]
    return After(
        [request for request in requests if request not in leaving],
        [(request["id"], _answer_of(request), reasons[request["id"]]) for request in leaving],
        sorted(free_slots + [request["slot"] for request in leaving]),
        free + [block for request in leaving for block in reversed(request["block_table"])],
    )


def _with_token(request: Request, sampled: dict[int, int]) -> Request:
    """The request with its new token, if the step gives it one."""
    if not _yields(request):
        return request
    return {**request, "token_ids": request["token_ids"] + [sampled[request["id"]]]}


def _yields(request: Request) -> bool:
    return request["num_computed_tokens"] == len(request["token_ids"])


def _reason(request: Request, ends: Request, eos_token_ids: list[int]) -> str:
    """Why the answer ends with the token that it has just got; "" where it goes on."""
    last = {*ends["stop_token_ids"]} if ends["ignore_eos"] else {*ends["stop_token_ids"], *eos_token_ids}
    if request["token_ids"][-1] in last:
        return "stop"
    return "length" if len(_answer_of(request)) >= ends["max_tokens"] else ""


def _read_report(answer: Any, given: Given) -> After:
    running, finished, free_slots, free = parts(answer, After._fields)
    return After(
        [_read_request(request) for request in read_list(running, "running")],
        [_read_finished(item) for item in read_list(finished, "finished")],
        whole_list(free_slots, "free_slots"),
        whole_list(free, "free"),
    )


def _read_request(value: Any) -> Request:
    if not isinstance(value, dict):
        raise WrongForm(f"each place of running should be a request, a dict; {show(value)} is {kind(value)}.")
    if value.keys() != set(FIELDS):
        there = ", ".join(map(str, value)) or "nothing"
        raise WrongForm(f"each request of running should have {', '.join(FIELDS)}; one has {there}.")
    lists = ("token_ids", "block_table")
    read = {name: whole_list if name in lists else whole for name in FIELDS}
    return {name: read[name](value[name], f"{name} of a request") for name in FIELDS}


def _read_finished(value: Any) -> tuple[int, list[int], str]:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise WrongForm(f"each place of finished should be (id, tokens, reason), not {show(value)}.")
    name, tokens, reason = value
    if not isinstance(reason, str):
        raise WrongForm(f"a reason should be a string; {show(reason)} is {kind(reason)}.")
    return whole(name, "the id of who is finished"), whole_list(tokens, "tokens of who is finished"), reason


def _names(report: After) -> list[int]:
    return [request["id"] for request in report.running] + [name for name, _, _ in report.finished]


def _answers(report: After) -> dict[int, list[int]]:
    """The answer of each request so far, by id."""
    answers = {request["id"]: _answer_of(request) for request in report.running}
    return answers | {name: answer for name, answer, _ in report.finished}


def _leaving(report: After) -> set[int]:
    return {name for name, _, _ in report.finished}


@promise("whoever left while the step was in flight gets nothing")
def _gone_get_nothing(given: Given, answer: After, expected: After) -> bool:
    return set(_names(answer)) <= set(_names(expected))


@promise("nobody is lost and nobody is counted twice")
def _none_lost(given: Given, answer: After, expected: After) -> bool:
    return sorted(_names(answer)) == sorted(_names(expected))


@promise("a part of a prompt gives no token")
def _part_gives_none(given: Given, answer: After, expected: After) -> bool:
    reading = [request for request in given["running"] if not _yields(request)]
    answers, leaving = _answers(answer), _leaving(answer)
    return all(
        answers[request["id"]] == _answer_of(request) and request["id"] not in leaving for request in reading
    )


@promise("whoever was computed to the end gets their token, the last one too")
def _all_get_their_token(given: Given, answer: After, expected: After) -> bool:
    return _answers(answer) == _answers(expected)


def _leave_as_expected(given: Given, answer: After, expected: After, tokens: set[int], stop: bool) -> bool:
    """Whether those who got one of `tokens`, their own stop token or not, leave as they should."""
    ids = {
        request["id"]
        for request in filter(_yields, given["running"])
        if (token := given["sampled"][request["id"]]) in tokens
        and (token in given["params"][request["id"]]["stop_token_ids"]) == stop
    }
    return ids & _leaving(answer) == ids & _leaving(expected)


@promise("the model's end token ends an answer, unless it is to be ignored")
def _end_token_ends(given: Given, answer: After, expected: After) -> bool:
    return _leave_as_expected(given, answer, expected, set(given["eos_token_ids"]), stop=False)


@promise("a stop token ends an answer, whatever else is ignored")
def _stop_token_ends(given: Given, answer: After, expected: After) -> bool:
    return _leave_as_expected(given, answer, expected, set(given["sampled"].values()), stop=True)


@promise("max_tokens ends an answer, and nothing else does")
def _count_ends(given: Given, answer: After, expected: After) -> bool:
    return _leaving(answer) == _leaving(expected)


@promise('the reason is "stop" where a token ended it, "length" where only the count did')
def _right_reason(given: Given, answer: After, expected: After) -> bool:
    return answer.finished == expected.finished


@promise("those who stay keep all that they have")
def _stay_as_they_are(given: Given, answer: After, expected: After) -> bool:
    return answer.running == expected.running


@promise("the slot of whoever leaves is free, the lowest first")
def _slots_free(given: Given, answer: After, expected: After) -> bool:
    return answer.free_slots == expected.free_slots


@promise("no block is lost and none is held twice")
def _blocks_conserved(given: Given, answer: After, expected: After) -> bool:
    return sorted(answer.free) == sorted(expected.free)


@promise("freed blocks go to the end of the list, the last one first")
def _freed_last_first(given: Given, answer: After, expected: After) -> bool:
    return answer == expected


def _explain_report(given: Given, expected: After) -> str:
    return f"{count(len(expected.finished), 'request')} finished, {len(expected.running)} on board"


FINISHING = Task(
    id="ex05.3",
    title="finish and release",
    function="finish",
    cases=_reports,
    smaller=_smaller_reports,
    expected=_expected_report,
    read=_read_report,
    properties=(
        _gone_get_nothing,
        _none_lost,
        _part_gives_none,
        _all_get_their_token,
        _end_token_ends,
        _stop_token_ends,
        _count_ends,
        _right_reason,
        _stay_as_they_are,
        _slots_free,
        _blocks_conserved,
        _freed_last_first,
    ),
    explain=_explain_report,
    hints=(
        "Walk over `running`, not over `sampled`: some of the sampled have left already.",
        "Where num_computed_tokens < len(token_ids), the token means nothing, and the request stays as it is. "
        "Else append it to a copy, and ask in this order: does a token end it? Is the count reached?",
        "stops = token in stop_token_ids or (token in eos_token_ids and not ignore_eos). Whoever leaves gives back "
        "its slot (sorted) and block_table[::-1] at the end of free; the answer is token_ids[prompt_tokens:].",
    ),
)
