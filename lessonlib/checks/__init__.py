"""What each exercise must do, how it is run, and what a wrong answer is told.

An exercise is a folder (`ex01`) with a file for each task: its inputs, the expected answer, the properties that an
answer must have, and its hints. `spec` says what a task is, `runner` checks one, `sandbox` runs the student's file.

`check("ex01")` in a notebook cell shows the same words as `lesson check ex01` in a terminal, and
`print(hint("ex01.1", 2))` those of `lesson hint ex01.1 2`.
"""

from lessonlib.checks.hints import hint, solution
from lessonlib.checks.own import own
from lessonlib.checks.report import Report, Result
from lessonlib.checks.runner import EXERCISES, check

__all__ = ["EXERCISES", "Report", "Result", "check", "hint", "own", "solution"]
