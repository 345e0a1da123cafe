"""The control plane: which requests wait, which run, and which blocks they hold. Integers and lists, never a tensor.

RequestState   request.py       one request, and the queue of those that wait
BlockPool      block_pool.py    the blocks of K/V memory
KVCache        kv_cache.py      block tables over a pool
Policy         policy.py        the decisions a policy may make; `policies.py` has all of them
RULES          rules.py        which server schedules by which of them
Scheduler      scheduler.py     `schedule()` gives a StepPlan, `update()` takes what came of it
StepPlan       plan.py          what one step computes: all that the data plane sees
plug           plugged.py       a student's functions in place of the scheduler's own
"""

from lessonlib.scheduling.block_pool import NULL_BLOCK, BlockPool, block_hash
from lessonlib.scheduling.kv_cache import KVCache, UnlimitedKVCache
from lessonlib.scheduling.plan import ScheduledRequest, StepPlan
from lessonlib.scheduling.plugged import plug
from lessonlib.scheduling.policies import ABLATIONS, POLICIES, make_policy
from lessonlib.scheduling.policy import Policy, SchedulerView
from lessonlib.scheduling.request import RequestQueue, RequestRejectedError, RequestState, RequestStatus
from lessonlib.scheduling.rules import RULES
from lessonlib.scheduling.scheduler import Scheduler

__all__ = [
    "ABLATIONS",
    "NULL_BLOCK",
    "POLICIES",
    "RULES",
    "BlockPool",
    "KVCache",
    "Policy",
    "RequestQueue",
    "RequestRejectedError",
    "RequestState",
    "RequestStatus",
    "ScheduledRequest",
    "Scheduler",
    "SchedulerView",
    "StepPlan",
    "UnlimitedKVCache",
    "block_hash",
    "make_policy",
    "plug",
]
