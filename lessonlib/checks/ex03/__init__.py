"""What exercise 03 must do: blocks, admission, preemption and the hashes that prefixes are found by.

The expected answers come from `lessonlib.scheduling`: the block pool, the K/V cache and the scheduler are brought into
the state of a case and asked what they would do.
"""

from lessonlib.checks.ex03.admit import ADMISSION
from lessonlib.checks.ex03.allocate import MEMORY
from lessonlib.checks.ex03.cached_tokens import PREFIXES
from lessonlib.checks.ex03.preempt import PREEMPTION
from lessonlib.checks.spec import Exercise

EX03 = Exercise("ex03", (MEMORY, ADMISSION, PREEMPTION, PREFIXES))
