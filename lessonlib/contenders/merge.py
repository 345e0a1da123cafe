"""One comparison from several result files: contenders or rows that were measured in several calls on one machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from lessonlib.errors import CourseError
from lessonlib.result import Comparison

ONE_MACHINE = ("gpu", "gpu_bytes", "cuda", "cpu", "cores_used", "threads", "memory_bytes")
SAME = ("preset", "model", "commit")  # of a comparison
PEAK = "peak"  # of `how`, may differ: the rows have the rates that came of it


def merge(paths: Sequence[str | Path]) -> Comparison:
    """One comparison from all files, in their order, with the copy bandwidth and the memory rooflines of the first.

    Commands and dates of all are kept, and `how["merged"]` has each file's own, with its copy bandwidth. Two machines
    of one kind cannot be told apart by their files: only merge files of one machine.

    Raises:
        CourseError: if the files differ in kind of machine, commit, model or way of measuring, or if two have the same
            contender on the same row.
    """
    if len(paths) < 2:
        raise CourseError(f"{paths[0]} alone cannot be merged: name two or more files, with commas")
    parts = [Comparison.load(path) for path in paths]
    for path, part in zip(paths[1:], parts[1:], strict=True):
        _check(parts[0], part, f"{path} cannot be merged with {paths[0]}")
    whole = reduce(_joined, parts)
    return replace(whole, how={**whole.how, "merged": [_origin(part) for part in parts]})


def _check(one: Comparison, other: Comparison, problem: str) -> None:
    for name in SAME:
        _same(name, getattr(one, name), getattr(other, name), problem)
    for name in ONE_MACHINE:
        _same(name, one.machine.get(name), other.machine.get(name), problem)
    for name in sorted((one.how.keys() | other.how.keys()) - {PEAK}):
        _same(name, one.how.get(name), other.how.get(name), problem)


def _same(name: str, one: Any, other: Any, problem: str) -> None:
    if one != other:
        raise CourseError(f"{problem}: {name} is {other} there and {one} here; measure both alike")


def _joined(one: Comparison, other: Comparison) -> Comparison:
    for result in other.results:
        if one.of(result.contender, result.row):
            raise CourseError(f"{result.contender} on {result.row} is in two of the files: leave one out")
    rows = {row.name: row for row in [*other.rows, *one.rows]}
    for row in other.rows:
        if replace(row, floor_seconds=0.0) != replace(rows[row.name], floor_seconds=0.0):
            raise CourseError(f"row {row.name!r} is other work in two of the files: measure both alike")
    names = dict.fromkeys(row.name for row in [*one.rows, *other.rows])
    return replace(
        one,
        date=f"{one.date}; {other.date}",
        command=f"{one.command}; {other.command}",
        how={**other.how, **one.how},
        rows=[rows[name] for name in names],
        results=[*one.results, *other.results],
        agreement=[*one.agreement, *other.agreement],
        failures={**one.failures, **other.failures},
        is_refused=one.is_refused or other.is_refused,
        is_whole=one.is_whole and other.is_whole,
    )


def _origin(part: Comparison) -> dict[str, Any]:
    return {
        "date": part.date,
        "command": part.command,
        "copy_bandwidth": part.machine.get("copy_bandwidth"),
        "contenders": part.contenders,
    }
