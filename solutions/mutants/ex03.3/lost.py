"""Throws requests out and forgets them.

property: nobody is lost and nobody is counted twice
told: came back  ([{'id': 0,
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    while sum(request["computed"] == len(request["table"]) * block_size for request in running) > len(free):
        last = running.pop()
        free = release(free, last["table"])  # noqa: F821
    return running, waiting, free
