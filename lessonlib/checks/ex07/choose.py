"""ex07.3: policy, slots and token budget for a load and a promise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from lessonlib.checks.spec import Given, Property, Task, WrongForm, kind, parts, promise, show, whole
from lessonlib.errors import CourseError
from lessonlib.incidents import service as served
from lessonlib.incidents.service import MEMORY, MIXED, PAUSES, POLICIES, RUSH, Outcome, Service, Settings
from lessonlib.trace import Trace

EACH = 2  # services of each kind
ENOUGH = 0.9  # of the promises that the best settings found keep


class Asked(list[list[float]]):
    """The requests as a function gets them, and the service that they belong to."""

    def __init__(self, service: Service) -> None:
        super().__init__([list(request) for request in service.requests])
        self.service = service


class Chosen(NamedTuple):
    """Settings, and what came of them; no outcome where the server does not start."""

    settings: Settings
    outcome: Outcome | None


def _services(rng: Random) -> Iterator[Given]:
    """Some of each kind."""
    for kind_ in (PAUSES, MEMORY, RUSH, MIXED):
        for chosen in rng.sample(range(served.CATALOG), EACH):
            yield _given(served.service(kind_, chosen))


def _given(service: Service) -> Given:
    machine = {
        "blocks": service.blocks,
        "block_size": service.block_size,
        "base": served.BASE,
        "per_prompt_token": served.PER_PROMPT_TOKEN,
        "per_kv_token": served.PER_KV_TOKEN,
    }
    return {
        "requests": Asked(service),
        "machine": machine,
        "ttft_limit": service.ttft_limit,
        "pause_limit": service.pause_limit,
    }


def _no_smaller(given: Given) -> Iterator[Given]:
    """With one request less the promise would be another."""
    return iter(())


def _best(requests: Asked, machine: dict[str, Any], ttft_limit: float, pause_limit: float) -> Chosen:
    settings, _ = served.best(requests.service)
    return Chosen(settings, served.outcome(requests.service, settings))


def _read_settings(answer: Any, given: Given) -> Chosen:
    policy, slots, budget = parts(answer, ("policy", "slots", "token_budget"))
    if not isinstance(policy, str):
        raise WrongForm(f"The policy should be its name, a string; what came back is {kind(policy)}.")
    settings = Settings(policy, whole(slots, "slots"), whole(budget, "token_budget"))
    try:
        return Chosen(settings, served.outcome(given["requests"].service, settings))
    except CourseError:
        return Chosen(settings, None)


@promise("the policy is one that this server has")
def _has_policy(given: Given, answer: Chosen, expected: Chosen) -> bool:
    return answer.settings.policy in POLICIES


@promise("the server starts: 1 to 64 slots, and a token for each of them in the budget")
def _starts(given: Given, answer: Chosen, expected: Chosen) -> bool:
    return answer.outcome is not None


def least_of(most: int) -> int:
    """To how many requests promises have to be kept, where the best settings found keep them to `most`."""
    return math.ceil(ENOUGH * most)


def _keeps(name: str, *kinds: str) -> Property:
    """Looks at services of these kinds."""

    def holds(given: Given, answer: Chosen, expected: Chosen) -> bool:
        assert answer.outcome is not None
        assert expected.outcome is not None
        looked_at = given["requests"].service.kind in kinds
        return not looked_at or answer.outcome.kept >= least_of(expected.outcome.kept)

    return Property(name, holds)


def _shown(answer: Chosen, expected: Chosen) -> tuple[str, str]:
    """What came of the settings. The best ones are kept back: there is more to learn from what went wrong."""
    assert expected.outcome is not None
    settings = show(tuple(answer.settings))
    most = expected.outcome.kept
    due = f"promises kept to {least_of(most)} or more; with the best settings found, to {most}"
    if answer.outcome is None:
        return f"{settings}, with which no server starts", due
    kept, late, paused = answer.outcome
    return (
        f"{settings}: promises kept to {kept}; first token late for {late}, a pause too long for {paused}",
        due,
    )


def _rides(given: Given, answer: Chosen | None, expected: Chosen) -> dict[str, Trace]:
    shown = expected if answer is None or answer.outcome is None else answer
    return {"ride": served.serve(given["requests"].service, shown.settings)}


SETTINGS = Task(
    id="ex07.3",
    title="settings for a promise",
    function="choose",
    cases=_services,
    smaller=_no_smaller,
    expected=_best,
    read=_read_settings,
    properties=(
        _has_policy,
        _starts,
        _keeps("no step takes longer than a pause may", PAUSES, MIXED),
        _keeps("no more ride than memory carries to the end of their answers", MEMORY),
        _keeps("who is in a hurry is read as fast as the promise allows", RUSH),
    ),
    shown=_shown,
    rides=_rides,
    kept_back="a policy, slots and a token budget",
    hints=(
        "Write down what a step costs, and what a request takes of the memory when it ends. Each promise, and the "
        "memory, bounds one of your three answers.",
        "A pause is a step. Its length less what every step costs is what is left for the tokens of prompts. Memory "
        "full of requests of the mean size says how many ride. Which policy lets decodes go on beside a prompt, and "
        "cuts prompts to the budget?",
        "`slots = blocks * block_size // mean(prompt + answer)`, at most 64. `token_budget = (pause_limit - base - "
        "per_kv_token * blocks * block_size) / per_prompt_token`, as a whole number, at least `slots`.",
    ),
)
