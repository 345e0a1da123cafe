"""Compares with `>=`: keeps a block that nobody asked for.

property: nobody is thrown out without need
told: preempt(running=[
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    while sum(request["computed"] == len(request["table"]) * block_size for request in running) >= len(
        free
    ) + (not running):
        last = running.pop()
        free = release(free, last["table"])  # noqa: F821
        waiting.insert(0, {**last, "computed": 0, "table": []})
    return running, waiting, free
