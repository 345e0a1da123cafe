"""Throws out whoever has been on board longest, and has most to compute again.

property: the last in is the first out
told: preempt(running=[
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    while sum(request["computed"] == len(request["table"]) * block_size for request in running) > len(free):
        last = running.pop(0)
        free = release(free, last["table"])  # noqa: F821
        waiting.append({**last, "computed": 0, "table": []})
    return running, waiting, free
