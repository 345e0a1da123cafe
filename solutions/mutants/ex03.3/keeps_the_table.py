"""Frees the blocks of the thrown out, whose table still points at them: the next one to own a block will be overheard.

property: the blocks of the thrown out come back
told: preempt(running=[
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    while sum(request["computed"] == len(request["table"]) * block_size for request in running) > len(free):
        last = running.pop()
        free = release(free, last["table"])  # noqa: F821
        waiting.insert(0, {**last, "computed": 0})
    return running, waiting, free
