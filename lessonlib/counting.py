"""Numbers with their nouns."""

from __future__ import annotations


def count(many: int, noun: str) -> str:
    """ "1 slot", "1,200 steps"."""
    return f"{many:,} {noun}{'' if many == 1 else 's'}"
