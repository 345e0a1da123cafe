"""Throws out one request, whether that is enough or not.

property: those who stay can grow
told: preempt(running=[
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    if (
        sum(request["computed"] == len(request["table"]) * block_size for request in running) > len(free)
        and running
    ):
        last = running.pop()
        free = release(free, last["table"])  # noqa: F821
        waiting.insert(0, {**last, "computed": 0, "table": []})
    return running, waiting, free
