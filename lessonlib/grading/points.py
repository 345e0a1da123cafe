"""What a submission is worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lessonlib.checks.report import NOT_CHECKED, PASSED


def points(
    results: Iterable[Mapping[str, Any]],
    weights: Mapping[str, float],
    given: Mapping[str, float] | None = None,
) -> tuple[float, float]:
    """(points reached, points there were). A task counts whole or not at all, but for points `given` by hand.

    What was not checked here counts on neither side; a task with a second result, for its speed, has to pass
    in whatever was checked.
    """
    by_task = {**points_by_task(results, weights), **(given or {})}
    return float(sum(by_task.values())), float(sum(weights[name] for name in by_task))


def points_by_task(results: Iterable[Mapping[str, Any]], weights: Mapping[str, float]) -> dict[str, float]:
    """Task → its points, for those that were checked here."""
    checked: dict[str, list[bool]] = {}
    for result in results:
        if result["status"] != NOT_CHECKED:
            checked.setdefault(result["id"], []).append(result["status"] == PASSED)
    return {name: weights[name] * all(passed) for name, passed in checked.items()}
