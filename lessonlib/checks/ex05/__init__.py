"""What exercise 05 must do: one step of an engine, shared out, laid out and reported.

What each request gets of a step is expected from `lessonlib.scheduling`: the scheduler is brought into the state of a
case and asked for its plan. The engine cannot be asked, since it stands above the checks: what a batch and a report
have to be is worked out here in another way, and tests run the engine beside the worked answers.
"""

from lessonlib.checks.ex05.finish import FINISHING
from lessonlib.checks.ex05.share_budget import SHARING
from lessonlib.checks.ex05.step_inputs import LAYOUT
from lessonlib.checks.spec import Exercise

EX05 = Exercise("ex05", (LAYOUT, SHARING, FINISHING))
