"""Whether contenders give the same tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from lessonlib.contenders.registry import entry
from lessonlib.contenders.session import Session
from lessonlib.contenders.setup import Setup

IDENTITY_DTYPE = "float32"


def check_identity(session: Session, setup: Setup) -> None:
    """Run the identity row with every contender that takes float32, and record for each pair where answers differ."""
    row = setup.identity
    if row is None:
        return
    job = replace(setup.job, dtype=IDENTITY_DTYPE, rows=[row], is_timed=False)
    answers: dict[str, list[list[int]]] = {}
    session.log(f"identity check: {len(row)} prompts in {IDENTITY_DTYPE}")
    asked = [name for name in session.names if entry(name).takes_dtype]
    together = [asked] if setup.preset.takes_turns else [[name] for name in asked]
    for names in together:
        with session.all_started(names, job) as processes:
            for name, process in processes.items():
                with session.recording_failure(name):
                    answers[name] = process.run(row.name, session.options.timeout)["tokens"]
    for pair in combinations(answers, 2):
        same = agreement(*(answers[name] for name in pair))
        session.comparison.agreement.append(
            {"row": row.name, "dtype": IDENTITY_DTYPE, "pair": list(pair), **same}
        )
        session.log(f"  {' and '.join(pair)}: {same['same']} of {same['requests']} answers identical")
    session.save()


def compare_answers(session: Session, setup: Setup) -> None:
    """Record for each pair on each timed row how many answers are the same to the last token.

    Tokens that were drawn at random are not compared.
    """
    comparison = session.comparison
    for row in setup.rows:
        if row.sampling.get("temperature"):
            continue
        results = [each for each in comparison.results if each.row == row.name and each.digests]
        for one, other in combinations(results, 2):
            comparison.agreement.append(
                {
                    "row": row.name,
                    "dtype": setup.job.dtype,
                    "pair": [one.contender, other.contender],
                    "requests": len(row),
                    "same": sum(a == b for a, b in zip(one.digests, other.digests, strict=True)),
                }
            )


def agreement(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> dict[str, Any]:
    """How many answers are the same to the last token, and (request, token) where the first other one differs."""
    pairs = list(zip(one, other, strict=True))
    differing = [(request, _first_difference(a, b)) for request, (a, b) in enumerate(pairs) if [*a] != [*b]]
    return {
        "requests": len(pairs),
        "same": len(pairs) - len(differing),
        "first_difference": differing[0] if differing else None,
    }


def _first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    """The first index at which two different answers differ; if one is a part of the other, its length."""
    shorter = min(len(one), len(other))
    return next((index for index in range(shorter) if one[index] != other[index]), shorter)


def digest(ids: Sequence[int]) -> str:
    """Twelve characters that are equal for equal token ids."""
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()[:12]
