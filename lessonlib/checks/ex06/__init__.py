"""What exercise 06 must do: judge a result file."""

from lessonlib.checks.ex06.goodput import GOODPUT
from lessonlib.checks.ex06.predict import PREDICTION
from lessonlib.checks.ex06.split import SPLIT
from lessonlib.checks.spec import Exercise

EX06 = Exercise("ex06", (GOODPUT, SPLIT, PREDICTION))
