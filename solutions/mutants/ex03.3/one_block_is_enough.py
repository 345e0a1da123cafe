"""Sees that a block is free, and does not count who needs one.

property: those who stay can grow
told: preempt(running=[
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    while any(request["computed"] == len(request["table"]) * block_size for request in running) and not free:
        last = running.pop()
        free = release(free, last["table"])  # noqa: F821
        waiting.insert(0, {**last, "computed": 0, "table": []})
    return running, waiting, free
