"""Throws out whoever comes first in line again and again, and frees nothing.

property: every call comes back
told: No answer within
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    while sum(request["computed"] == len(request["table"]) * block_size for request in running) > len(free):
        last = running[-1]
        waiting.insert(0, {**last, "computed": 0, "table": []})
    return running, waiting, free
