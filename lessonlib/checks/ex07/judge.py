"""Calls a student's guard for several rides at once. Copied beside the program that runs a student's file."""

from collections.abc import Callable
from typing import Any


def judge(guard: Callable[[Any], Any], rides: list[Any]) -> list[Any]:
    """What the guard says of each ride, in order."""
    return [guard(ride) for ride in rides]
