"""Changes the request where it stands, in the caller's own list.

property: the inputs are left as they were
told: It changed its input running from [{'id': 0,
"""


def preempt(running, waiting, free, block_size):
    running, waiting = list(running), list(waiting)
    while sum(request["computed"] == len(request["table"]) * block_size for request in running) > len(free):
        last = running.pop()
        free = release(free, last["table"])  # noqa: F821
        last["computed"], last["table"] = 0, []
        waiting.insert(0, last)
    return running, waiting, free
