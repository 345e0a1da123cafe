"""Puts a request on the waitlist and leaves it on board as well.

property: nobody is lost and nobody is counted twice
told: preempt(running=[
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    if sum(request["computed"] == len(request["table"]) * block_size for request in running) > len(free):
        last = running[-1]
        free = release(free, last["table"])  # noqa: F821
        waiting.insert(0, {**last, "computed": 0, "table": []})
    return running, waiting, free
