"""Believes that the prompt is still stored, though its blocks are not its own any more.

property: what was computed is computed again
told: was due    ([{'id': 0,
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    while sum(request["computed"] == len(request["table"]) * block_size for request in running) > len(free):
        last = running.pop()
        free = release(free, last["table"])  # noqa: F821
        waiting.insert(0, {**last, "table": []})
    return running, waiting, free
