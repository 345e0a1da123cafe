"""What exercise 01 must do: utilization in plain Python."""

from lessonlib.checks.ex01.drain import DRAIN
from lessonlib.checks.ex01.expected_static_utilization import EXPECTED_STATIC_UTILIZATION
from lessonlib.checks.ex01.static_utilization import STATIC_UTILIZATION
from lessonlib.checks.spec import Exercise

EX01 = Exercise("ex01", (STATIC_UTILIZATION, EXPECTED_STATIC_UTILIZATION, DRAIN))
