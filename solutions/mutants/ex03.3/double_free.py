"""Frees the table when it throws a request out, and its last block again.

property: the blocks of the thrown out come back
told: preempt(running=[
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    while sum(request["computed"] == len(request["table"]) * block_size for request in running) > len(free):
        last = running.pop()
        free = release(free, last["table"] + last["table"][-1:])  # noqa: F821
        waiting.insert(0, {**last, "computed": 0, "table": []})
    return running, waiting, free
