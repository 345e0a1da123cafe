"""What exercise 05 must do: one step of an engine, shared out, laid out and reported.

What share of a step is due comes from `lessonlib.scheduling`: the scheduler is brought into the state of a
case and asked for its plan. The engine itself cannot be asked, since it stands above the checks: what a
batch and a report have to be is worked out here in another way, and tests ride the engine beside the worked
answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any, NamedTuple

import numpy as np

from lessonlib.checks.rides import DRAWN, fewer, lower, without
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
from lessonlib.scheduling.request import RequestState, RequestStatus
from lessonlib.scheduling.scheduler import Scheduler

Request = dict[str, Any]


def _replaced(given: Given, name: str, place: int, item: Any) -> Given:
    """The same case with another item in one place of one of its lists."""
    return {**given, name: [*given[name][:place], item, *given[name][place + 1 :]]}


def _a_list(value: Any, what: str) -> list[Any]:
    """A list, whatever it holds; an array's rows are lists."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise WrongForm(f"{what} should be a list; what came back is {kind(value)}.")
    return list(value)


# ----- ex05.1 -----


class Batch(NamedTuple):
    """What `step_inputs` answers."""

    token_ids: list[int]
    positions: list[int]
    slot_mapping: list[int]
    query_start_loc: list[int]
    seq_lens: list[int]
    block_table: list[list[int]]


class Shape(NamedTuple):
    """One row in numbers: tokens computed, scheduled and left for later, and blocks to spare."""

    computed: int
    scheduled: int
    later: int = 0
    spare: int = 0


WRITES = Shape(computed=3, scheduled=1)


def _batches(rng: Random) -> Iterator[Given]:
    """One row in every state, then two and three of them, then larger batches."""
    for block_size, computed, scheduled in product((2, 1, 3), (0, 1, 2, 3, 4), (1, 2, 3)):
        for later, spare in ((0, 0), (2, 0), (0, 1)):
            yield _batch(rng, [Shape(computed, scheduled, later, spare)], block_size)
    for block_size, reads in product((2, 3), (WRITES, Shape(0, 3), Shape(2, 2, 3), Shape(1, 5, 0, 1))):
        yield _batch(rng, [WRITES, reads], block_size)
        yield _batch(rng, [reads, Shape(0, 1)], block_size)
        yield _batch(rng, [WRITES, Shape(6, 1), reads], block_size)
    for _ in range(DRAWN):
        writing = [Shape(rng.randint(1, 30), 1) for _ in range(rng.randint(0, 5))]
        reading = [
            Shape(
                rng.choice((0, rng.randint(0, 20))), rng.randint(1, 20), rng.choice((0, 9)), rng.randint(0, 1)
            )
            for _ in range(rng.randint(0 if writing else 1, 3))
        ]
        yield _batch(rng, writing + reading, rng.choice((1, 2, 4, 16)))


def _batch(rng: Random, shapes: list[Shape], block_size: int) -> Given:
    """Rows of these shapes. All tokens differ, and blocks have any order, as after a while of use."""
    lengths = [shape.computed + shape.scheduled + shape.later for shape in shapes]
    tokens = iter(rng.sample(range(10, 1_000), sum(lengths)))
    sizes = [-(-length // block_size) + shape.spare for length, shape in zip(lengths, shapes, strict=True)]
    # Odd ids only: the block beside one's own is never one's own too.
    blocks = iter(rng.sample(range(1, 2 * sum(sizes) + 2, 2), sum(sizes)))
    rows = [
        {
            "token_ids": [next(tokens) for _ in range(length)],
            "num_computed_tokens": shape.computed,
            "num_scheduled_tokens": shape.scheduled,
            "block_table": [next(blocks) for _ in range(size)],
        }
        for shape, length, size in zip(shapes, lengths, sizes, strict=True)
    ]
    return {"rows": rows, "block_size": block_size}


def _smaller_batches(given: Given) -> Iterator[Given]:
    """A row less, a token less, or a block less that nobody needs."""
    yield from fewer(given, "rows", least=1)
    for place, row in enumerate(given["rows"]):
        for smaller in _smaller_rows(row):
            if len(smaller["token_ids"]) <= len(smaller["block_table"]) * given["block_size"]:
                yield _replaced(given, "rows", place, smaller)


def _smaller_rows(row: Request) -> Iterator[Request]:
    tokens, computed, scheduled = (
        row[name] for name in ("token_ids", "num_computed_tokens", "num_scheduled_tokens")
    )
    if computed:
        yield {**row, "token_ids": tokens[1:], "num_computed_tokens": computed - 1}
    if scheduled > 1:
        yield {**row, "token_ids": tokens[:-1], "num_scheduled_tokens": scheduled - 1}
    if len(tokens) > computed + scheduled:
        yield {**row, "token_ids": tokens[:-1]}
    yield {**row, "block_table": row["block_table"][:-1]}


def _due_batch(rows: list[Request], block_size: int) -> Batch:
    """Every place that a request holds, in order of position; this step's are a piece of that."""
    due = Batch([], [], [], [0], [], [])
    widest = max(len(row["block_table"]) for row in rows)
    for row in rows:
        held = [
            place
            for block in row["block_table"]
            for place in range(block * block_size, (block + 1) * block_size)
        ]
        start, many = row["num_computed_tokens"], row["num_scheduled_tokens"]
        this_step = slice(start, start + many)
        due.token_ids.extend(row["token_ids"][this_step])
        due.positions.extend(range(len(held))[this_step])
        due.slot_mapping.extend(held[this_step])
        due.query_start_loc.append(due.query_start_loc[-1] + many)
        due.seq_lens.append(start + many)
        due.block_table.append([*row["block_table"], *[0] * widest][:widest])
    return due


def _read_batch(answer: Any, given: Given) -> Batch:
    *_, tables = read = parts(answer, Batch._fields)
    ids, positions, places, starts, lens = map(whole_list, read[:-1], Batch._fields)
    by_row = [whole_list(table, "each table of block_table") for table in _a_list(tables, "block_table")]
    return Batch(ids, positions, places, starts, lens, by_row)


def _as_many_tokens(given: Given, answer: Batch, due: Batch) -> bool:
    return {len(part) for part in answer[:3]} == {len(due.token_ids)}


def _goes_on(given: Given, answer: Batch, due: Batch) -> bool:
    return answer.token_ids == due.token_ids


def _own_positions(given: Given, answer: Batch, due: Batch) -> bool:
    return answer.positions == due.positions


def _places_differ(given: Given, answer: Batch, due: Batch) -> bool:
    return len(set(answer.slot_mapping)) == len(answer.slot_mapping)


def _own_blocks(given: Given, answer: Batch, due: Batch) -> bool:
    places = iter(answer.slot_mapping)
    return all(
        next(places) // given["block_size"] in row["block_table"]
        for row in given["rows"]
        for _ in range(row["num_scheduled_tokens"])
    )


def _by_the_table(given: Given, answer: Batch, due: Batch) -> bool:
    return answer.slot_mapping == due.slot_mapping


def _from_zero_to_the_end(given: Given, answer: Batch, due: Batch) -> bool:
    return [*answer.query_start_loc[:1], *answer.query_start_loc[-1:]] == [0, len(due.token_ids)]


def _rows_apart(given: Given, answer: Batch, due: Batch) -> bool:
    return answer.query_start_loc == due.query_start_loc


def _sees_this_step(given: Given, answer: Batch, due: Batch) -> bool:
    return answer.seq_lens == due.seq_lens


def _one_width(given: Given, answer: Batch, due: Batch) -> bool:
    return list(map(len, answer.block_table)) == list(map(len, due.block_table))


def _blocks_then_null(given: Given, answer: Batch, due: Batch) -> bool:
    return answer == due


def _explain_batch(given: Given, due: Batch) -> str:
    shares = [row["num_scheduled_tokens"] for row in given["rows"]]
    return f"{count(len(shares), 'row')} of {', '.join(map(str, shares))}, blocks of {given['block_size']}"


LAYOUT = Task(
    id="ex05.1",
    title="one flat batch",
    function="step_inputs",
    cases=_batches,
    smaller=_smaller_batches,
    due=_due_batch,
    read=_read_batch,
    properties=(
        Property("a row has as many tokens as it was given for this step", _as_many_tokens),
        Property("a row goes on with the first token that is not computed", _goes_on),
        Property("a position counts from the beginning of the request, not of the batch", _own_positions),
        Property("no two tokens are stored in one place", _places_differ),
        Property("nobody writes into a block of somebody else", _own_blocks),
        Property("a token is stored where its position is in the block table", _by_the_table),
        Property("query_start_loc begins at 0 and ends at the number of tokens", _from_zero_to_the_end),
        Property("a row's tokens lie between its two places in query_start_loc", _rows_apart),
        Property("attention sees what was stored before and this step's tokens", _sees_this_step),
        Property("every table is as wide as the widest", _one_width),
        Property("a table is its request's blocks, then null blocks", _blocks_then_null),
    ),
    explain=_explain_batch,
)


# ----- ex05.2 -----

Shares = list[tuple[int, int]]
COUNTS = ("prompt_tokens", "num_output_tokens", "num_computed_tokens", "prefill_target")


class Counts(NamedTuple):
    """One request's `COUNTS`."""

    prompt: int
    output: int
    computed: int
    target: int


def _writes(prompt: int, output: int, since: int = 0) -> Counts:
    """Somebody who was given `since` tokens before they boarded for the last time, and some afterwards."""
    return Counts(prompt, output, prompt + output - 1, prompt + since)


def _reads(prompt: int, computed: int, output: int = 0) -> Counts:
    """Somebody who boarded with a prompt and, after a preemption, with words of their own."""
    return Counts(prompt, output, computed, prompt + output)


def _waits(prompt: int, output: int = 0) -> Counts:
    return Counts(prompt, output, 0, 0)


def _steps(rng: Random) -> Iterator[Given]:
    """One rule at a time; then small steps with several, then larger ones."""
    yield from _one_rule()
    for most in (1, 2, 3):
        for _ in range(20):
            yield _step(rng, slots=rng.randint(1, most), most_waiting=most - 1, longest=3)
    for _ in range(DRAWN):
        yield _step(rng, slots=rng.randint(2, 8), most_waiting=6, longest=rng.choice((10, 500)))


def _one_rule() -> Iterator[Given]:
    """The smallest steps that show each rule: who is on board, who waits, slots, budget."""
    for running, waiting, slots, token_budget in (
        ([_writes(1, 1)], [], 1, 1),
        ([_reads(3, 0)], [], 1, 9),
        ([_reads(3, 1)], [], 1, 9),  # one part is read
        ([_reads(3, 1)], [], 1, 1),  # and one more will be
        ([], [_waits(3)], 1, 9),
        ([], [_waits(3)], 1, 2),
        ([], [_waits(2, 1)], 1, 9),  # it rode before
        ([_reads(2, 2, output=2)], [], 1, 9),  # its prompt is read again, its words are not
        ([_writes(2, 2, since=1)], [], 1, 9),
        ([_reads(3, 0), _writes(1, 1)], [], 2, 2),  # the prompt came first
        ([_reads(3, 0), _writes(1, 1)], [], 2, 9),
        ([_reads(3, 0), _reads(2, 1)], [], 2, 2),  # the second would be done
        ([_reads(3, 0), _reads(1, 0)], [], 2, 9),
        ([_reads(3, 0)], [_waits(1)], 2, 2),
        ([_reads(3, 0)], [_waits(1)], 2, 9),
        ([], [_waits(3), _waits(1)], 2, 2),
        ([], [_waits(3), _waits(1)], 2, 9),
        ([], [_waits(1), _waits(1)], 1, 9),  # a slot for one
        ([_writes(1, 1)], [_waits(1)], 1, 9),
        ([_writes(1, 1), _writes(1, 1)], [_waits(1)], 3, 3),
    ):
        yield _named(running, waiting, slots, token_budget)


def _named(running: list[Counts], waiting: list[Counts], slots: int, token_budget: int) -> Given:
    """The case, with ids in the order in which they stand."""
    requests = [
        {"id": place, **dict(zip(COUNTS, counts, strict=True))}
        for place, counts in enumerate(running + waiting)
    ]
    on_board = len(running)
    return {
        "running": requests[:on_board],
        "waiting": requests[on_board:],
        "slots": slots,
        "token_budget": token_budget,
    }


def _step(rng: Random, slots: int, most_waiting: int, longest: int) -> Given:
    riders = [_rider(rng, longest) for _ in range(rng.randint(0, slots))]
    waiting = [
        _waits(rng.randint(1, longest), rng.choice((0, 0, rng.randint(1, longest))))
        for _ in range(rng.randint(0 if riders else 1, max(1, most_waiting)))
    ]
    return _named(riders, waiting, slots, slots + rng.choice((0, 1, longest, 3 * longest, 2_000)))


def _rider(rng: Random, longest: int) -> Counts:
    prompt, output = rng.randint(1, longest), rng.randint(1, longest)
    if rng.random() < 0.5:
        return _writes(prompt, output, since=rng.choice((0, rng.randrange(output))))
    output = rng.choice((0, output))
    return _reads(prompt, rng.randrange(prompt + output), output)


def _smaller_steps(given: Given) -> Iterator[Given]:
    """The smaller case stays like the larger one: where the budget was short, it still is.

    Whoever lets a prompt eat the others' tokens is not told of the order of a batch in which all are served.
    """
    for smaller in _fewer_tokens(given):
        if _is_short(smaller) == _is_short(given):
            yield smaller


def _is_short(given: Given) -> bool:
    served = [*given["running"], *given["waiting"][: given["slots"] - len(given["running"])]]
    return sum(map(_lacks, served)) > given["token_budget"]


def _fewer_tokens(given: Given) -> Iterator[Given]:
    """Fewer requests, slots and tokens; each request is still in a state that it can be in."""
    many = len(given["running"]) + len(given["waiting"])
    for name in ("running", "waiting") if many > 1 else ():
        yield from fewer(given, name)
    yield from lower(given, "slots", max(1, len(given["running"])))
    yield from lower(given, "token_budget", given["slots"])
    for name in ("running", "waiting"):
        for place, request in enumerate(given[name]):
            for smaller in _smaller_counts(request):
                if _can_be(smaller, on_board=name == "running"):
                    yield _replaced(given, name, place, smaller)


def _smaller_counts(request: Request) -> Iterator[Request]:
    """The request with half, and with one less, of some of its tokens."""
    prompt, output, computed, target = COUNTS
    for name, names in product((prompt, output), ((computed, target), (computed,), (target,), ())):
        for less in sorted({max(1, request[name] // 2), 1}, reverse=True):
            yield {**request, **{each: request[each] - less for each in (name, *names)}}
    yield {**request, computed: request[computed] - 1}


def _can_be(request: Request, on_board: bool) -> bool:
    prompt, output, computed, target = (request[name] for name in COUNTS)
    if prompt < 1 or output < 0:
        return False
    if not on_board:
        return computed == target == 0
    writes = prompt <= target <= computed == prompt + output - 1
    reads = 0 <= computed < target == prompt + output
    return writes or reads


def _due_shares(running: list[Request], waiting: list[Request], slots: int, token_budget: int) -> Shares:
    """What `Scheduler.schedule` plans with so many free slots, memory being no question."""
    free = slots - len(running)
    scheduler = Scheduler(max(1, free), token_budget=token_budget)
    for request in waiting if free else ():
        scheduler.add_request(str(request["id"]), _num_tokens(request), max_tokens=1)
    scheduler.running += [_state(request, order) for order, request in enumerate(running)]
    return [(int(row.id), row.num_scheduled_tokens) for row in scheduler.schedule().scheduled]


def _state(request: Request, order: int) -> RequestState:
    return RequestState(
        str(request["id"]),
        request["prompt_tokens"],
        request["num_output_tokens"] + 2,  # it wants more than this step gives
        order=order,
        status=RequestStatus.RUNNING,
        num_output_tokens=request["num_output_tokens"],
        num_computed_tokens=request["num_computed_tokens"],
        prefill_target=request["prefill_target"],
    )


def _read_shares(answer: Any, given: Given) -> Shares:
    pairs = _a_list(answer, "The answer")
    if not pairs and _writers(given):
        raise WrongForm("The answer is empty, and somebody is writing: they get a token in every step.")
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise WrongForm(f"each place of the answer should be a pair (id, tokens), not {show(pair)}.")
    return [(whole(one, "the id in a pair"), whole(two, "tokens")) for one, two in pairs]


def _num_tokens(request: Request) -> int:
    return request["prompt_tokens"] + request["num_output_tokens"]


def _lacks(request: Request) -> int:
    return _num_tokens(request) - request["num_computed_tokens"]


def _is_reading(request: Request) -> bool:
    return request["num_computed_tokens"] < request["prefill_target"]


def _writers(given: Given) -> list[int]:
    return [request["id"] for request in given["running"] if not _is_reading(request)]


def _readers(given: Given) -> list[Request]:
    """Whoever reads, or would if they boarded, in the order in which they are served."""
    return [*filter(_is_reading, given["running"]), *given["waiting"]]


def _served_once(given: Given, answer: Shares, due: Shares) -> bool:
    here = {request["id"] for request in given["running"] + given["waiting"]}
    served = [name for name, _ in answer]
    return len(set(served)) == len(served) and set(served) <= here


def _within_budget(given: Given, answer: Shares, due: Shares) -> bool:
    """Nobody's share is below zero to make room for others."""
    return sum(max(0, tokens) for _, tokens in answer) <= given["token_budget"]


def _what_they_lack(given: Given, answer: Shares, due: Shares) -> bool:
    lacks = {request["id"]: _lacks(request) for request in given["running"] + given["waiting"]}
    return all(1 <= tokens <= lacks[name] for name, tokens in answer)


def _nobody_is_held_up(given: Given, answer: Shares, due: Shares) -> bool:
    return set(_writers(given)) <= {name for name, _ in answer}


def _writers_in_front(given: Given, answer: Shares, due: Shares) -> bool:
    writers = _writers(given)
    return [name for name, _ in answer[: len(writers)]] == writers


def _has_slot(given: Given, answer: Shares, due: Shares) -> bool:
    boarded = {request["id"] for request in given["waiting"]} & {name for name, _ in answer}
    return len(given["running"]) + len(boarded) <= given["slots"]


def _computed_again(given: Given, answer: Shares, due: Shares) -> bool:
    """Looks at the shares of those who ride again, where budget and slots gave them all they lack."""
    again = {request["id"]: _lacks(request) for request in _readers(given) if request["num_output_tokens"]}
    given_all = {name: tokens for name, tokens in due if again.get(name) == tokens}
    shares = dict(answer)
    return all(shares.get(name, tokens) == tokens for name, tokens in given_all.items())


def _nobody_overtakes(given: Given, answer: Shares, due: Shares) -> bool:
    """Readers stand in the order of the batch, and behind one who was cut short nobody is served."""
    readers, shares = _readers(given), dict(answer)
    served = [request["id"] for request in readers if request["id"] in shares]
    all_read = [shares.get(request["id"]) == _lacks(request) for request in readers]
    behind = readers[all_read.index(False) + 1 :] if False in all_read else []
    in_order = [name for name, _ in answer if name in served] == served
    return in_order and not any(request["id"] in shares for request in behind)


def _budget_used(given: Given, answer: Shares, due: Shares) -> bool:
    return answer == due


def _explain_shares(given: Given, due: Shares) -> str:
    left = given["token_budget"] - len(_writers(given))
    lacking = [_lacks(request) for request in _readers(given)]
    if not lacking:
        return ""
    return f"left for those who read: {count(left, 'token')}; they lack {', '.join(map(str, lacking))}"


SHARING = Task(
    id="ex05.2",
    title="the token budget",
    function="share_budget",
    cases=_steps,
    smaller=_smaller_steps,
    due=_due_shares,
    read=_read_shares,
    properties=(
        Property("whoever is served is here, and is served once", _served_once),
        Property("a step computes no more tokens than its budget", _within_budget),
        Property("nobody computes what is computed already, or what is not there yet", _what_they_lack),
        Property("no prompt holds up those who are writing", _nobody_is_held_up),
        Property("those who are writing come first in the batch", _writers_in_front),
        Property("everyone on board has a slot", _has_slot),
        Property("what was generated before a preemption is computed again", _computed_again),
        Property("nobody overtakes", _nobody_overtakes),
        Property("the budget is used as far as it goes", _budget_used),
    ),
    explain=_explain_shares,
)


# ----- ex05.3 -----


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
    for place, name in enumerate(on_board):
        if len(on_board) > 1 or len(given["sampled"]) > 1:
            fewer_of = {part: _but(given[part], name) for part in ("params", "sampled")}
            yield {**given, **fewer_of, "running": without(given["running"], place)}
    for name in ("free", "free_slots"):
        yield from fewer(given, name)
    for place, request in enumerate(given["running"]):
        for smaller in _smaller_requests(request):
            yield _replaced(given, "running", place, smaller)
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


def _due_report(
    running: list[Request],
    params: dict[int, Request],
    sampled: dict[int, int],
    eos_token_ids: list[int],
    free_slots: list[int],
    free: list[int],
) -> After:
    """First everyone hears their token, then it is seen who leaves."""
    told = [_told(request, sampled) for request in running]
    reasons = {
        after["id"]: _reason(after, params[after["id"]], eos_token_ids)
        for before, after in zip(running, told, strict=True)
        if after != before
    }
    leaving = [request for request in told if reasons.get(request["id"])]
    return After(
        [request for request in told if request not in leaving],
        [(request["id"], _answer_of(request), reasons[request["id"]]) for request in leaving],
        sorted(free_slots + [request["slot"] for request in leaving]),
        free + [block for request in leaving for block in reversed(request["block_table"])],
    )


def _told(request: Request, sampled: dict[int, int]) -> Request:
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
        [_read_request(request) for request in _a_list(running, "running")],
        [_read_finished(item) for item in _a_list(finished, "finished")],
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
    """What everyone has been told, by id."""
    told = {request["id"]: _answer_of(request) for request in report.running}
    return told | {name: answer for name, answer, _ in report.finished}


def _leaving(report: After) -> set[int]:
    return {name for name, _, _ in report.finished}


def _gone_get_nothing(given: Given, answer: After, due: After) -> bool:
    return set(_names(answer)) <= set(_names(due))


def _none_lost(given: Given, answer: After, due: After) -> bool:
    return sorted(_names(answer)) == sorted(_names(due))


def _part_gives_none(given: Given, answer: After, due: After) -> bool:
    reading = [request for request in given["running"] if not _yields(request)]
    told, leaving = _answers(answer), _leaving(answer)
    return all(
        told[request["id"]] == _answer_of(request) and request["id"] not in leaving for request in reading
    )


def _everyone_is_told(given: Given, answer: After, due: After) -> bool:
    return _answers(answer) == _answers(due)


def _leave_as_due(given: Given, answer: After, due: After, tokens: set[int], stop: bool) -> bool:
    """Whether those who were told one of `tokens`, their own stop token or not, leave as they should."""
    told = {
        request["id"]
        for request in filter(_yields, given["running"])
        if (token := given["sampled"][request["id"]]) in tokens
        and (token in given["params"][request["id"]]["stop_token_ids"]) == stop
    }
    return told & _leaving(answer) == told & _leaving(due)


def _end_token_ends(given: Given, answer: After, due: After) -> bool:
    return _leave_as_due(given, answer, due, set(given["eos_token_ids"]), stop=False)


def _stop_token_ends(given: Given, answer: After, due: After) -> bool:
    return _leave_as_due(given, answer, due, set(given["sampled"].values()), stop=True)


def _count_ends(given: Given, answer: After, due: After) -> bool:
    return _leaving(answer) == _leaving(due)


def _right_reason(given: Given, answer: After, due: After) -> bool:
    return answer.finished == due.finished


def _stay_as_they_are(given: Given, answer: After, due: After) -> bool:
    return answer.running == due.running


def _slots_free(given: Given, answer: After, due: After) -> bool:
    return answer.free_slots == due.free_slots


def _blocks_conserved(given: Given, answer: After, due: After) -> bool:
    return sorted(answer.free) == sorted(due.free)


def _freed_last_first(given: Given, answer: After, due: After) -> bool:
    return answer == due


def _explain_report(given: Given, due: After) -> str:
    return f"{count(len(due.finished), 'request')} finished, {len(due.running)} on board"


FINISHING = Task(
    id="ex05.3",
    title="finish and release",
    function="finish",
    cases=_reports,
    smaller=_smaller_reports,
    due=_due_report,
    read=_read_report,
    properties=(
        Property("whoever left while the step was in flight gets nothing", _gone_get_nothing),
        Property("nobody is lost and nobody is counted twice", _none_lost),
        Property("a part of a prompt gives no token", _part_gives_none),
        Property("whoever was computed to the end gets their token, the last one too", _everyone_is_told),
        Property("the model's end token ends an answer, unless it is to be ignored", _end_token_ends),
        Property("a stop token ends an answer, whatever else is ignored", _stop_token_ends),
        Property("max_tokens ends an answer, and nothing else does", _count_ends),
        Property(
            'the reason is "stop" where a token ended it, "length" where only the count did', _right_reason
        ),
        Property("those who stay keep all that they have", _stay_as_they_are),
        Property("the slot of whoever leaves is free, the lowest first", _slots_free),
        Property("no block is lost and none is held twice", _blocks_conserved),
        Property("freed blocks go to the end of the list, the last one first", _freed_last_first),
    ),
    explain=_explain_report,
)

EX05 = Exercise("ex05", (LAYOUT, SHARING, FINISHING))
