"""What exercise 07 must do: on call.

Tickets, rides and what was planted in them come from `lessonlib.incidents`; the best settings from a search with the
simulator.
"""

from pathlib import Path

from lessonlib.checks.ex07.choose import SETTINGS
from lessonlib.checks.ex07.diagnose import DIAGNOSIS
from lessonlib.checks.ex07.is_sound import GUARD
from lessonlib.checks.spec import Exercise

EX07 = Exercise(
    "ex07", (DIAGNOSIS, GUARD, SETTINGS), harness={"judge.py": Path(__file__).with_name("judge.py")}
)
