"""A Trace as a plain record, step by step: what a program of plain Python can read without this course.

A record is a dictionary:

    slots, block_size, blocks     as the server was set up; `blocks` is how many requests can hold in all
    budget                        tokens a step may compute
    watermark                     blocks that an admission beside others leaves free
    patience                      steps that a request waits for each tier below the best; 0: there are no tiers
    requests                      a dictionary each: prompt, limit (output tokens it is to get), tier, tenant, and
                                  ids, the token ids of its prompt where they are known, else None
    steps                         a dictionary each, of what happened in the step, requests by their number:
        start, duration           in the Trace's clock
        arrived                   request → the time at which it arrived, for those that the step is the first to see
        preempted                 requests that lost their slot and blocks before the step ran
        boarded                   request → tokens that it found stored
        prefill                   request → tokens of its prompt (or, after a preemption, of all it had) computed
        decode                    requests that got an output token
        finished, gave_up         requests for which it was the last step on board; who gave up may have waited
        on_board                  request → its slot, for all who were on board while the step ran
        known                     request on board → tokens it had before the step, of prompt and answer
        stored                    request on board → tokens whose K/V is stored after the step
        held                      request on board → K/V blocks it held while the step ran
        queue                     requests that waited while the step ran, in order of arrival
        free_blocks               blocks that were free while the step ran
        overheard                 request → blocks it read that another request had written
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from lessonlib.incidents.load import Load
from lessonlib.trace import Kind, Trace

Record = dict[str, Any]
Event = tuple[int, int, int, int, int]  # kind, request, slot, tokens, blocks


@dataclass
class _State:
    """A request between two steps."""

    prompt: int
    given: int = 0
    stored: int = 0
    held: int = 0
    slot: int = 0


def plain_record(trace: Trace, load: Load) -> Record:
    """The record of a Trace of this load."""
    head, workload = trace.header, load.workload
    return {
        "slots": head.slots,
        "block_size": head.block_size,
        "blocks": max(0, head.num_blocks - 1),
        "budget": load.token_budget,
        "watermark": load.watermark,
        "patience": load.patience,
        "requests": [
            {
                "prompt": workload[row].prompt_tokens,
                "limit": workload[row].output_tokens,
                "tier": workload[row].priority,
                "tenant": load.tenants[row] if load.tenants else "",
                "ids": list(load.prompts[row]) if load.prompts else None,
            }
            for row in range(len(workload))
        ],
        "steps": _steps(trace),
    }


def _steps(trace: Trace) -> list[Record]:
    """Every step in turn, with the state of all requests carried along."""
    events = _events(trace)
    overheard = _overheard(trace)
    states = [_State(prompt) for prompt in trace.requests["prompt_tokens"].tolist()]
    on_board: dict[int, int] = {}
    queue: set[int] = set()
    columns = (trace.steps[name].tolist() for name in ("start", "duration", "free_blocks"))
    steps = []
    for number, (start, duration, free_blocks) in enumerate(zip(*columns, strict=True)):
        step: Record = {"start": start, "duration": duration, "free_blocks": free_blocks}
        step |= _happened(events[number], trace)
        queue = (queue | step["arrived"].keys() | set(step["preempted"])) - step["boarded"].keys()
        for request in step["preempted"]:
            on_board.pop(request, None)
        on_board |= {event[1]: event[2] for event in events[number] if event[0] == Kind.BOARD}
        step["on_board"] = dict(sorted(on_board.items()))
        step["known"] = {each: states[each].prompt + states[each].given for each in step["on_board"]}
        _advance(events[number], states, trace.header.block_size)
        step["stored"] = {each: states[each].stored for each in step["on_board"]}
        step["held"] = {each: states[each].held for each in step["on_board"]}
        step["queue"], step["overheard"] = sorted(queue), overheard[number]
        for request in [*step["finished"], *step["gave_up"]]:
            on_board.pop(request, None)
            queue.discard(request)
        steps.append(step)
    return steps


def _overheard(trace: Trace) -> dict[int, dict[int, int]]:
    """Step → request → blocks of others that it read."""
    columns = (trace.overheard[name].tolist() for name in ("step", "request", "blocks"))
    found: dict[int, dict[int, int]] = defaultdict(dict)
    for step, request, blocks in zip(*columns, strict=True):
        found[step][request] = found[step].get(request, 0) + blocks
    return found


def _events(trace: Trace) -> dict[int, list[Event]]:
    """Step → its events in order of kind, one for each step of a run of decodes."""
    names = ("step", "request", "slot", "kind", "tokens", "blocks")
    found: dict[int, list[Event]] = defaultdict(list)
    columns = (trace.events[name].tolist() for name in names)
    for step, request, slot, kind, tokens, blocks in zip(*columns, strict=True):
        if kind == Kind.DECODE:
            for each in range(tokens):
                last = each == tokens - 1
                found[step + each].append((kind, request, slot, 1, blocks if last else -blocks))
        else:
            found[step].append((kind, request, slot, tokens, blocks))
    return defaultdict(list, {step: sorted(each) for step, each in found.items()})


def _happened(events: list[Event], trace: Trace) -> Record:
    """What the events of one step say, without a look at earlier ones."""
    of = {kind: [event for event in events if event[0] == kind] for kind in Kind}
    return {
        "arrived": {each[1]: float(trace.requests["arrival_time"][each[1]]) for each in of[Kind.ARRIVE]},
        "preempted": [each[1] for each in of[Kind.PREEMPT]],
        "boarded": {each[1]: each[3] for each in of[Kind.BOARD]},
        "prefill": {each[1]: each[3] for each in of[Kind.PREFILL]},
        "decode": [each[1] for each in of[Kind.DECODE]],
        "finished": [each[1] for each in of[Kind.FINISH]],
        "gave_up": [each[1] for each in of[Kind.ABORT]],
    }


def _advance(events: list[Event], states: list[_State], block_size: int) -> None:
    """Bring the requests from before the step to after it."""
    read = {event[1] for event in events if event[0] == Kind.PREFILL}
    for kind, request, slot, tokens, blocks in events:
        state = states[request]
        if kind == Kind.PREEMPT:
            state.stored = state.held = 0
        elif kind == Kind.BOARD:
            state.slot, state.stored, state.held = slot, tokens, blocks
        elif kind == Kind.PREFILL:
            state.stored, state.held = state.stored + tokens, blocks
        elif kind == Kind.DECODE:
            state.stored += request not in read
            state.given += 1
            # A run of decodes has its blocks at its end. Before that a table grows with what is stored.
            grown = max(state.held, -(-state.stored // block_size)) if block_size else 0
            state.held = blocks if blocks >= 0 else min(-blocks, grown)
