"""The numbers that decide between policies: speed for one against speed for all, promises kept, who waits how long.

Each function gives plain data that `viz.decide` draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lessonlib.errors import CourseError
from lessonlib.scheduling.policies import make_policy
from lessonlib.scheduling.policy import Policy
from lessonlib.simulation.compare import longest_answer
from lessonlib.simulation.simulator import simulate
from lessonlib.trace import Kind, Trace
from lessonlib.workload import Workload

KEPT_SHARE = 0.9  # of the requests, up to a policy's knee
MakePolicy = Callable[[Workload], Policy]
"""Makes a policy for a workload, such as one that is told its lengths."""


class Level(NamedTuple):
    """A service level: seconds to a request's first token, and seconds a token after it, on average."""

    ttft: float
    tpot: float

    @property
    def words(self) -> str:
        return f"first token within {self.ttft:g} s, then {1000 * self.tpot:g} ms a token"


class Operating(NamedTuple):
    """What one setting gives: tokens a second to one request, median, and to all of the card; its slots."""

    per_user: float
    per_card: float
    slots: int


def _ridden(workload: Workload, policy: str | MakePolicy, options: Mapping[str, Any]) -> Trace:
    made = make_policy(policy) if isinstance(policy, str) else policy(workload)
    return simulate(workload, made, **{"max_tokens": longest_answer(workload), **options})


def pareto(
    workload: Workload, policies: Mapping[str, str | MakePolicy], slots: Sequence[int], **options: Any
) -> dict[str, list[Operating]]:
    """For each policy what every number of slots gives: the plane in which operators choose.

    Args:
        workload: requests that all wait at the start, so that the card is never short of work.
        policies: name to show -> a policy's name, or what makes it.
        slots: numbers of slots to try.
        options: of `simulate`, a cost model among them.
    """
    answer = {}
    for name, policy in policies.items():
        traces = [(count, _ridden(workload, policy, {**options, "slots": count})) for count in slots]
        answer[name] = [
            Operating(float(np.median(1 / trace.time_per_output_token())), trace.tokens / trace.span, count)
            for count, trace in traces
        ]
    return answer


def kept(trace: Trace, level: Level) -> np.ndarray:
    """Whether each request was served at the level or better, bool `[num_requests]`. Who is rejected was not."""
    first = np.full(trace.num_requests, np.inf)
    served = np.unique(trace.rows(Kind.DECODE)["request"])
    first[served] = trace.first_token_time()
    latency = np.full(trace.num_requests, np.inf)
    latency[trace.rows(Kind.FINISH)["request"]] = trace.latency()
    gaps = np.maximum(1, trace.output_tokens() - 1)
    with np.errstate(invalid="ignore"):
        per_token = (latency - first) / gaps
    return (first <= level.ttft) & (per_token <= level.tpot)


def goodput(
    arriving: Callable[[float], Workload],
    policies: Mapping[str, str | MakePolicy],
    rates: Sequence[float],
    levels: Sequence[Level],
    **options: Any,
) -> dict[str, list[list[float]]]:
    """For each policy, at each level, the share of requests that are served at it, at each rate of arrival.

    Zhong et al., "DistServe", OSDI 2024, call the rate that keeps both promises goodput.

    Args:
        arriving: a rate in requests a second -> the requests that arrive at it.
        policies, options: as `pareto` takes them.
        rates: requests a second, ascending.

    Returns:
        name -> a list for each level -> the share at each rate.
    """
    answer: dict[str, list[list[float]]] = {name: [[] for _ in levels] for name in policies}
    for rate in rates:
        workload = arriving(rate)
        for name, policy in policies.items():
            trace = _ridden(workload, policy, options)
            for shares, level in zip(answer[name], levels, strict=True):
                shares.append(float(kept(trace, level).mean()))
    return answer


def knee(rates: Sequence[float], shares: Sequence[float], share: float = KEPT_SHARE) -> float:
    """The highest rate up to which every rate keeps the promise to `share` of the requests; 0.0 if none does."""
    good = [rate for rate, now in zip(rates, np.minimum.accumulate(shares), strict=True) if now >= share]
    return float(good[-1]) if good else 0.0


def waits_by_length(
    workload: Workload, policies: Mapping[str, str | MakePolicy], share: float = 1 / 3, **options: Any
) -> dict[str, dict[str, np.ndarray]]:
    """Seconds from arrival to the last token of the requests with the shortest and with the longest answers.

    Args:
        policies, options: as `pareto` takes them.
        share: of the requests, at each end.

    Returns:
        name -> {"short": seconds, "long": seconds}, float64 arrays of finished requests.

    Raises:
        CourseError: for a share that is none, or more than half.
    """
    if not 0 < share <= 0.5:
        raise CourseError(f"a share of {share} at each end: give more than 0 and at most 0.5")
    order = np.argsort(workload.output_tokens, kind="stable")
    count = max(1, int(share * len(workload)))
    ends = {"short": order[:count], "long": order[-count:]}
    return _by_group(workload, policies, ends, options)


def waits_by_user(
    workload: Workload, users: Sequence[str], policies: Mapping[str, str | MakePolicy], **options: Any
) -> dict[str, dict[str, np.ndarray]]:
    """The same for each user's requests; `users` has a name for each request."""
    names = np.array(users)
    groups = {user: np.flatnonzero(names == user) for user in dict.fromkeys(users)}
    return _by_group(workload, policies, groups, {**options, "salts": users})


def _by_group(
    workload: Workload,
    policies: Mapping[str, str | MakePolicy],
    groups: Mapping[str, np.ndarray],
    options: Mapping[str, Any],
) -> dict[str, dict[str, np.ndarray]]:
    answer = {}
    for name, policy in policies.items():
        trace = _ridden(workload, policy, options)
        took = np.full(trace.num_requests, np.nan)
        took[trace.rows(Kind.FINISH)["request"]] = trace.latency()
        answer[name] = {group: took[rows][~np.isnan(took[rows])] for group, rows in groups.items()}
    return answer


def served_over_time(
    trace: Trace, users: Sequence[str], points: int = 200
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Output tokens each user was given by then.

    Returns:
        Times in the Trace's clock, float64 `[points]`, and for each user int64 `[points]`.
    """
    times = np.linspace(0.0, trace.steps["start"][0] + trace.span, points)
    tokens = trace.token_times()
    served = {}
    for user in dict.fromkeys(users):
        given = np.sort(
            np.concatenate([np.array(tokens[row]) for row, who in enumerate(users) if who == user])
        )
        served[user] = np.searchsorted(given, times, side="right")
    return times, served
