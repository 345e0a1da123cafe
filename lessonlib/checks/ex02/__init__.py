"""What exercise 02 must do: the parts of the waitlist scheduler.

The state is `occupant` and `remaining` (int64 `[slots]`, NOBODY and 0 in a free slot), `waitlist` (request ids, next to
board first) and `lengths` (tokens of each request, by id).
"""

from lessonlib.checks.ex02.continuous_batching import CONTINUOUS_BATCHING
from lessonlib.checks.ex02.refill import REFILL
from lessonlib.checks.ex02.static_batching import STATIC_BATCHING
from lessonlib.checks.ex02.step import STEP
from lessonlib.checks.spec import Exercise

EX02 = Exercise("ex02", (REFILL, STEP, STATIC_BATCHING, CONTINUOUS_BATCHING), packages=("numpy",))
